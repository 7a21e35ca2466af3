-- Internal. The registry and the keyring are held before (registry.hold, keyring.hold).

create or replace function workspace.lock_workspace(with_key keyring.data_key, ws uuid)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if lock_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next
  -- statement might see it.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  if not found then
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;
  return workspace.read_workspace(with_key, lock_workspace.ws);
end
$$;
comment on function workspace.lock_workspace(keyring.data_key, uuid) is
  'Internal: locks a workspace until the transaction ends and reads it. Raises as read_workspace does.';
