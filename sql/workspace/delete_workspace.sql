create or replace function workspace.delete_workspace(ws uuid, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  current workspace.snapshot;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(delete_workspace.ws, needs_key => false);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_workspace.expected_version);
  end if;

  -- No runtime and no model, so nobody serves it and nobody pays; changed.
  decided := (null, null, 'none', null, null, false, null, true, false);
  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  return workspace.write_change(current, decided, 'delete_workspace');
end
$$;
comment on function workspace.delete_workspace(uuid, bigint) is
  'Deletes a workspace and all its secrets. Its history stays, and its id stays taken.
ws: the workspace. expected_version: refuse unless the workspace is at this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';
