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
declare
  current workspace.snapshot;
  active keyring.keys;
  unlocked keyring.unlocked;
  last_position bigint;
begin
  -- As workspace.hold, which nearly every call would have to call.
  if current_setting('transaction_isolation') = 'read committed' then
    lock table registry.state, keyring.keys in row share mode;
  else
    perform workspace.hold();
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock and
  -- the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret as it
  -- was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next statement
  -- might see it.
  select w.id, w.runtime, w.version, w.position
  into current.workspace_id, current.runtime, current.version, last_position
  from workspace.workspaces as w
  where w.id = lock_workspace.ws
  for no key update;
  if not found then
    if lock_workspace.runtime is not null then
      perform registry.require_runtime(lock_workspace.runtime);
    end if;
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;

  loop
    -- The place in the feed: not below our own transaction id (as workspace.own_position), for readers are given what lies
    -- below the oldest transaction still running, and this is not visible yet. Not below the change before: its transaction
    -- may be the younger one, if it got the workspace first. (It is over, or our own. Equal positions go by version.)
    select s.sealed, s.key_id, k.id, k.wrapped, greatest((n.era << 45) + pg_current_xact_id()::text::bigint, last_position)
    into current.sealed, current.key_id, active.id, active.wrapped, current.next_position
    from workspace.numbering as n
    left join workspace.secrets as s on s.workspace_id = lock_workspace.ws and s.key = 'MODEL'
    left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;

  unlocked := keyring.unlock(
    active, lock_workspace.needs_key, current.workspace_id, 'MODEL', current.sealed, current.key_id
  );
  current.with_key := unlocked.with_key;
  current.model := unlocked.value;
  current.model_is_unreadable := current.sealed is not null and current.model is null;
  return current;
end
$$;
comment on function workspace.lock_workspace(uuid, text, boolean) is
  'Internal: keeps the registry, the keyring and a workspace as they are until the transaction ends, and reads the workspace.
Raises as read_workspace does; of a workspace that is not there it says first, where a runtime is given, that this is not there either.';
