create or replace function fleet.recent_changes(max_entries integer default 20)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  recorded workspace.changes;
begin
  if recent_changes.max_entries is null or recent_changes.max_entries not between 1 and 1000 then
    perform registry.invalid_argument('max_entries', 'is not between 1 and 1000');
  end if;

  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for recorded in
    select c.*
    from workspace.changes as c
    order by c.position desc, c.workspace_id desc, c.version desc
    limit recent_changes.max_entries
  loop
    return next workspace.entry_of(with_key, recorded);
  end loop;
end
$$;
comment on function fleet.recent_changes(integer) is
  'The newest changes of all workspaces, the latest first.
For looking at: what commits late can appear behind what was seen before. To follow them there is fleet.changes_after.
max_entries: how many, at most 1000. Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT.';
