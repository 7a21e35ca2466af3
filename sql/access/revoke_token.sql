create or replace function access.revoke_token(name text)
returns access.token
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(revoke_token.name, 'name');
  moment constant timestamptz := clock_timestamp();
  revoked access.token;
begin
  update access.tokens as t
  set revoked_at = coalesce(t.revoked_at, moment)
  where t.name = called
  returning t.name, t.role, t.workspace_id, t.created_at, t.expires_at, t.last_used_at, t.revoked_at
  into revoked;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'There is no token of this name.',
      detail = jsonb_build_object('code', 'TOKEN_NOT_FOUND', 'name', called),
      hint = 'Take one of those that access.list_tokens shows.';
  end if;
  return revoked;
end
$$;
comment on function access.revoke_token(text) is
  'Ends a token, from its next use on; nothing is changed if it was revoked before.
name: its name.
Errors: INVALID_ARGUMENT, TOKEN_NOT_FOUND.';
