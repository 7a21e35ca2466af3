-- Internal. The workspace's row is locked before. All of it or, if any statement fails, nothing.

create or replace function workspace.write_change(
  with_key keyring.data_key,
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean,
  request_id text,
  name text default null
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  described workspace.changes := workspace.describe_change(
    write_change.current, write_change.decided, write_change.action
  );
  stored keyring.sealed_value := (current.sealed, current.key_id);
  moment constant timestamptz := clock_timestamp();
begin
  if write_change.name is not null then
    described.name := write_change.name;
    described.changed := described.changed
      or (select w.name <> write_change.name from workspace.workspaces as w where w.id = current.workspace_id);
  end if;

  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not described.changed and write_change.request_id is null then
    return workspace.change_of(described, current.model, decided.model);
  end if;

  -- A model that stays keeps its bytes.
  if decided.model is distinct from current.model or current.model_is_unreadable then
    if decided.model is null then
      delete from workspace.secrets as s where s.workspace_id = current.workspace_id and s.key = 'MODEL';
      stored := null;
    else
      stored := workspace.store_secret(with_key, current.workspace_id, 'MODEL', decided.model);
    end if;
  end if;

  described.version := current.version + 1;
  update workspace.workspaces as w
  set
    name = coalesce(write_change.name, w.name),
    runtime = decided.runtime,
    version = described.version,
    updated_at = moment
  where w.id = current.workspace_id;

  perform workspace.record_change(described, current, stored, write_change.restore, write_change.request_id);
  return workspace.change_of(described, current.model, decided.model);
end
$$;
comment on function workspace.write_change(keyring.data_key, workspace.snapshot, workspace.decision, text, boolean, text, text) is
  'Internal: stores what was decided about an existing workspace, records it and says what was done.';
