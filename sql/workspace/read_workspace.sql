-- Internal. One statement, so that the pair is never torn.

create or replace function workspace.read_workspace(ws uuid, needs_key boolean default true)
returns workspace.snapshot
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot workspace.snapshot;
  active keyring.keys;
  unlocked keyring.unlocked;
begin
  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    k.id, k.wrapped
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    active.id, active.wrapped
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  unlocked := keyring.unlock(
    active, read_workspace.needs_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id
  );
  snapshot.with_key := unlocked.with_key;
  snapshot.model := unlocked.value;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(uuid, boolean) is
  'Internal: a workspace''s runtime, version and model, and the key that seals.
Raises INVALID_ARGUMENT, WORKSPACE_NOT_FOUND and, unless it can do without the key, ENCRYPTION_KEY_MISSING.';
