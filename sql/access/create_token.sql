create or replace function access.create_token(
  name text,
  role text,
  hash bytea,
  workspace_id uuid default null,
  expires_at timestamptz default null
)
returns access.token
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(create_token.name, 'name');
  asked_role constant text collate "C" := create_token.role;
  moment constant timestamptz := clock_timestamp();
begin
  if asked_role is null then
    perform registry.invalid_argument('role', 'is null');
  elsif asked_role not in ('admin', 'operator', 'workspace') then
    perform registry.invalid_argument('role', 'is not admin, operator or workspace');
  elsif asked_role = 'workspace' and create_token.workspace_id is null then
    perform registry.invalid_argument('workspace_id', 'is null, and the role is workspace');
  elsif asked_role <> 'workspace' and create_token.workspace_id is not null then
    perform registry.invalid_argument('workspace_id', 'is for the role workspace only');
  elsif create_token.hash is null then
    perform registry.invalid_argument('hash', 'is null');
  elsif octet_length(create_token.hash) <> 32 then
    perform registry.invalid_argument('hash', 'is not a SHA-256 hash');
  elsif create_token.expires_at <= moment then
    perform registry.invalid_argument('expires_at', 'is in the past');
  end if;

  insert into access.tokens (name, hash, role, workspace_id, created_at, expires_at)
  values (
    called, create_token.hash, asked_role, create_token.workspace_id, moment, create_token.expires_at
  )
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'A token has this name already.',
      detail = jsonb_build_object('code', 'TOKEN_EXISTS', 'name', called),
      hint = 'Take another name. The name of a revoked token stays taken: the history speaks of that one.';
  end if;
  return (called, asked_role, create_token.workspace_id, moment, create_token.expires_at, null, null)::access.token;
end
$$;
comment on function access.create_token(text, text, bytea, uuid, timestamptz) is
  'Makes a token for the HTTP service known; the token itself stays with its maker.
name: what to call it; the history of workspaces will name it. role: admin, operator or workspace. hash: the SHA-256 of the token, which
should be at least 32 random bytes. workspace_id: the only workspace it is for, with the role workspace. expires_at: null: never.
Errors: INVALID_ARGUMENT, TOKEN_EXISTS.';
