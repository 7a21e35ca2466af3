-- Internal. The workspace's row is locked before. All of it or, if any statement fails, nothing.

create or replace function workspace.write_change(
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
    write_change.current, write_change.decided, write_change.action,
    write_change.restore, write_change.request_id, write_change.name
  );
  stored keyring.sealed_value;
  stored_as text;
begin
  if described.name is not null and not described.changed then
    described.changed := (
      select w.name <> described.name from workspace.workspaces as w where w.id = described.workspace_id
    );
  end if;

  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not described.changed and described.request_id is null then
    return workspace.change_of(described, current.model, decided.model);
  end if;

  -- A model that stays keeps its bytes. Another one is sealed first: a plain value must never reach a table or the WAL.
  if decided.model is distinct from current.model and decided.model is not null then
    stored := keyring.seal(current.with_key, current.workspace_id, 'MODEL', decided.model);
    stored_as := 'MODEL';
  elsif decided.model is not null or current.sealed is null then
    stored := (current.sealed, current.key_id);
  else
    delete from workspace.secrets as s where s.workspace_id = described.workspace_id and s.key = 'MODEL';
  end if;

  described.version := current.version + 1;
  described.sealed := stored.sealed;
  described.key_id := stored.key_id;
  perform workspace.record_change(described, stored_as, stored);
  return workspace.change_of(described, current.model, decided.model);
end
$$;
comment on function workspace.write_change(workspace.snapshot, workspace.decision, text, boolean, text, text) is
  'Internal: stores what was decided about an existing workspace, records it and says what was done.';
