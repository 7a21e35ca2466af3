create or replace function fleet.recent_changes(max_entries integer default 20)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
begin
  if recent_changes.max_entries is null or recent_changes.max_entries not between 1 and 1000 then
    perform registry.invalid_argument('max_entries', 'is not between 1 and 1000');
  end if;

  return query
    select
      c.workspace_id, c.version, c.action, c.changed, c.previous_runtime::text, c.runtime::text,
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source, c.provider, c.billed_to, c.actor, c.request_id::text, c.changed_at, c.secret::text, c.name
    from workspace.changes as c
    order by c.position desc, c.workspace_id desc, c.version desc
    limit recent_changes.max_entries;
end
$$;
comment on function fleet.recent_changes(integer) is
  'The newest changes of all workspaces, the latest first.
For looking at: what commits late can appear behind what was seen before. To follow them there is fleet.changes_after.
max_entries: how many, at most 1000. Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT.';
