create or replace function workspace.get_secret(ws uuid, name text)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := workspace.secret_name(get_secret.name);
  stored keyring.sealed_value;
  value text;
begin
  if get_secret.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = get_secret.ws and s.key = called;
  if not found then
    if not exists (select from workspace.workspaces as w where w.id = get_secret.ws) then
      perform workspace.workspace_not_found(get_secret.ws);
    end if;
    raise exception using
      errcode = 'PT404',
      message = 'The workspace has no secret of this name.',
      detail = jsonb_build_object('code', 'SECRET_NOT_FOUND', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Call workspace.list_secrets to see the names of those it has.';
  end if;

  value := keyring.unseal(keyring.active_key(), get_secret.ws, called, stored.sealed, stored.key_id);
  if value is null then
    raise exception using
      errcode = 'PT500',
      message = 'This secret cannot be read.',
      detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Replace or remove it with workspace.set_secret or workspace.delete_secret.';
  end if;
  return value;
end
$$;
comment on function workspace.get_secret(uuid, text) is
  'The value of a workspace''s secret.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.get_workspace.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_NOT_FOUND, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING.';
