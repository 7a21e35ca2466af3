create or replace function workspace.delete_secret(ws uuid, name text, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := workspace.secret_name(delete_secret.name);
  current workspace.snapshot;
begin
  current := workspace.lock_workspace(delete_secret.ws, needs_key => false);
  if delete_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_secret.expected_version);
  end if;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id and s.key = called;
  return workspace.write_secret_change(current, called, 'delete_secret', found);
end
$$;
comment on function workspace.delete_secret(uuid, text, bigint) is
  'Removes a secret of a workspace, readable or not; without such a secret it changes nothing.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.clear_model. expected_version: refuse unless the workspace is at
this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';
