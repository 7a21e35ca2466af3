-- A call does its work in fewer, larger statements.

create or replace function keyring.init()
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.strong_kek('runtime_registry.kek');
begin
  perform registry.require_read_committed();
  -- There is no key yet on which a snapshot from before it could fail (keyring.hold), to go on storing plain values: it
  -- fails on this row instead (registry.hold).
  update registry.state as s set revision = s.revision;
  perform keyring.lock();
  if exists (select from keyring.keys as k) then
    raise exception using
      errcode = 'PT409',
      message = 'The keyring has keys already.',
      detail = jsonb_build_object('code', 'KEYRING_EXISTS'),
      hint = 'Call keyring.rotate to make a new one.';
  end if;
  return keyring.add_key(kek);
end
$$;
comment on function keyring.init() is
  'Turns encryption on by making the first key.
It is wrapped by the session''s key-encryption key: the setting runtime_registry.kek, 32 random bytes in base64 or hex. Returns the key''s id.
From now on every model and secret that is set is sealed, and sessions that write or read them need the setting. What is stored plain stays so,
also in rows of the history that repeat it, until keyring.reseal seals it.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT (the setting is no such key), KEYRING_EXISTS, ISOLATION_UNSUPPORTED.';

-- Internal. The one place that turns a row of changes into an answer; the models come unsealed from the caller.

create or replace function workspace.change_of(recorded workspace.changes, previous_model text, model text)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  answer workspace.change;
begin
  answer.workspace_id := recorded.workspace_id;
  answer.version := recorded.version;
  answer.changed := recorded.changed;
  answer.previous_runtime := recorded.previous_runtime;
  answer.runtime := recorded.runtime;
  answer.previous_model := change_of.previous_model;
  answer.model := change_of.model;
  answer.model_source := recorded.model_source;
  answer.model_was_reset := recorded.model_source in ('restored', 'equivalent', 'default');
  answer.provider := recorded.provider;
  answer.billed_to := recorded.billed_to;
  answer.billing_changed := recorded.billing_changed;
  answer.needs_restart := recorded.changed
    and recorded.action not in ('create_workspace', 'delete_workspace')
    and (
      recorded.action <> 'rename_workspace'
      or recorded.runtime <> recorded.previous_runtime
      or change_of.previous_model is distinct from change_of.model
    );
  answer.model_deprecated := recorded.model_deprecated;
  answer.model_sunset_at := recorded.model_sunset_at;
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';

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

-- Who may call what.
revoke all on all functions in schema registry, keyring, access, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key,
  access.tokens,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.numbering, workspace.snapshot, workspace.decision,
  workspace.key_use,
  fleet.retention, fleet.stored_model, fleet.pair, fleet.place
from public;

grant usage on schema registry, keyring, workspace, fleet
  to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;
grant usage on schema access
  to runtime_registry_operator, runtime_registry_admin;

-- Readers, and with them everybody.
grant execute on function
  registry.resolve(text, text, text[]),
  registry.default_model(text),
  registry.menu(text),
  registry.list_runtimes(),
  registry.list_models(text),
  registry.status(),
  keyring.opens(),
  workspace.get_workspace(uuid),
  workspace.preview_runtime_change(uuid, text, text, boolean),
  workspace.history(uuid),
  workspace.list_secrets(uuid),
  fleet.list_workspaces(uuid, integer),
  fleet.overview(),
  fleet.recent_changes(integer),
  fleet.orphans(text)
to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- Operators, and with them admins. What the HTTP service needs: it runs as an operator.
grant execute on function
  workspace.create_workspace(text, text, text, uuid, text),
  workspace.change_runtime(uuid, text, text, boolean, bigint, text),
  workspace.set_model(uuid, text, bigint, text),
  workspace.clear_model(uuid, bigint, text),
  workspace.rename_workspace(uuid, text, text, text, boolean, bigint, text),
  workspace.delete_workspace(uuid, bigint),
  workspace.set_secret(uuid, text, text, bigint),
  workspace.get_secret(uuid, text),
  workspace.delete_secret(uuid, text, bigint),
  access.authenticate(bytea)
to runtime_registry_operator, runtime_registry_admin;

-- Admins.
grant execute on function
  fleet.load_registry(jsonb, text, boolean),
  fleet.restore_registry(bigint, text, boolean),
  fleet.revisions(),
  fleet.revision_manifest(bigint),
  fleet.deprecations(),
  fleet.changes_after(text, integer),
  fleet.current_cursor(),
  fleet.prune_changes(timestamptz, integer, text),
  fleet.reset_orphans(text, text, uuid, integer, uuid[], boolean),
  fleet.move(text, text, boolean, text, uuid, integer, uuid[], boolean),
  keyring.init(),
  keyring.rotate(),
  keyring.rewrap(),
  keyring.reseal(uuid, integer),
  keyring.retire(integer),
  keyring.status(boolean),
  access.create_token(text, text, bytea, uuid, timestamptz),
  access.revoke_token(text),
  access.list_tokens()
to runtime_registry_admin;
