-- Internal. One statement, so that the pair is never torn.

create or replace function workspace.read_workspace(with_key keyring.data_key, ws uuid)
returns workspace.snapshot
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot workspace.snapshot;
begin
  if read_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    array(select c.key::text from workspace.secrets as c where c.workspace_id = w.id and c.key <> 'MODEL')
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    snapshot.credentials
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  if snapshot.sealed is not null then
    snapshot.model := keyring.unseal(with_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id);
  end if;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(keyring.data_key, uuid) is
  'Internal: a workspace''s runtime, version, model and names of credentials. Raises INVALID_ARGUMENT or WORKSPACE_NOT_FOUND.';
