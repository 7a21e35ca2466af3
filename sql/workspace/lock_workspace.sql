-- Internal. The registry is held before (registry.hold).

create or replace function workspace.lock_workspace(ws uuid)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  return workspace.read_workspace(lock_workspace.ws);
end
$$;
comment on function workspace.lock_workspace(uuid) is
  'Internal: locks a workspace until the transaction ends and reads it. Raises as read_workspace does.';
