-- Internal. Whoever changes a workspace calls this first.

create or replace function workspace.lock_workspace(
  ws uuid,
  runtime text default null,
  needs_key boolean default true
)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform workspace.hold();

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next
  -- statement might see it.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  if not found then
    if lock_workspace.runtime is not null then
      perform registry.require_runtime(lock_workspace.runtime);
    end if;
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;
  return workspace.read_workspace(lock_workspace.ws, lock_workspace.needs_key);
end
$$;
comment on function workspace.lock_workspace(uuid, text, boolean) is
  'Internal: keeps the registry, the keyring and a workspace as they are until the transaction ends, and reads the workspace.
Raises as read_workspace does; of a workspace that is not there it says first, where a runtime is given, that this is not there either.';
