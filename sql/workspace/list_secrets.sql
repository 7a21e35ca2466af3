create or replace function workspace.list_secrets(ws uuid)
returns setof workspace.secret_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  if list_secrets.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  elsif not exists (select from workspace.workspaces as w where w.id = list_secrets.ws) then
    perform workspace.workspace_not_found(list_secrets.ws);
  end if;

  return query
    select s.key::text, s.updated_at
    from workspace.secrets as s
    where s.workspace_id = list_secrets.ws
    order by s.key;
end
$$;
comment on function workspace.list_secrets(uuid) is
  'The names of a workspace''s secrets, MODEL among them; never a value, and no key-encryption key is needed.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';
