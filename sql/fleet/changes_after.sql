create or replace function fleet.changes_after(cursor text default null, batch integer default 1000)
returns setof fleet.feed_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot.
  place constant fleet.place := fleet.parse_cursor(changes_after.cursor);
  feed_end constant bigint := fleet.feed_end();
  prunings constant bigint := coalesce((select r.prunings from fleet.retention as r), 0);
  with_key constant keyring.data_key := keyring.active_key();
  recorded workspace.changes;
  entry fleet.feed_entry;
begin
  perform fleet.check_batch(changes_after.batch);
  -- A standby may be behind the server that gave the cursor.
  if place.position > feed_end and not pg_is_in_recovery() then
    perform registry.invalid_argument('cursor', 'is ahead of this database');
  end if;
  if changes_after.cursor is not null and exists (
    select
    from fleet.retention as r
    where r.prunings > place.prunings
      and (r.position, r.workspace_id, r.version) > (place.position, place.workspace_id, place.version)
  ) then
    perform registry.invalid_argument('cursor', 'is older than changes that were pruned');
  end if;

  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for recorded in
    select c.*
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit changes_after.batch
  loop
    entry.cursor := concat_ws('.', recorded.position, recorded.workspace_id, recorded.version, prunings);
    entry.workspace_id := recorded.workspace_id;
    entry.version := recorded.version;
    entry.action := recorded.action;
    entry.changed := recorded.changed;
    entry.previous_runtime := recorded.previous_runtime;
    entry.runtime := recorded.runtime;
    entry.previous_model := keyring.unseal(
      with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id
    );
    entry.model := keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id);
    entry.model_source := recorded.model_source;
    entry.provider := recorded.provider;
    entry.billed_to := recorded.billed_to;
    entry.actor := recorded.actor;
    entry.request_id := recorded.request_id;
    entry.changed_at := recorded.changed_at;
    entry.secret := recorded.secret;
    entry.needs_restart := (workspace.change_of(recorded, entry.previous_model, entry.model)).needs_restart;
    entry.name := recorded.name;
    return next entry;
  end loop;
end
$$;
comment on function fleet.changes_after(text, integer) is
  'The committed changes of all workspaces behind a cursor, each with its own cursor; none if there are no more for now.
Followed from cursor to cursor it gives each change exactly once, a workspace''s in the order of their versions. A change is given when
every transaction is over that was older than the one that made it: one that stays open, in any database of the cluster, prepared ones
too, holds the feed up, but never makes it skip anything.
cursor: that of the last change seen; null: from the beginning of what has not been pruned; see also fleet.current_cursor. Cursors stay
good on a standby and in a database restored from a dump. batch: how many changes at most.
Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, also for a cursor that is ahead of this database (its changes were lost) or older than changes that were
pruned: then take fleet.current_cursor and read the workspaces anew.';
