-- Orphans are found and reset, and workspaces moved, in batches; the fleet from above.

-- Functions that go, or whose arguments or results change.
drop function
  fleet.unroutable_workspaces(keyring.data_key);

create type fleet.orphan as (
  workspace_id uuid,
  runtime text,
  model text,
  problem text,
  reset_model text,
  reset_source text
);
comment on type fleet.orphan is
  'A workspace whose model is not routable on its runtime, or cannot be read.
problem: not registered, or unreadable (then model is null). reset_model, reset_source: what fleet.reset_orphans would give it: an
equivalent or the default; both null where it would refuse.';

create type fleet.move_entry as (
  workspace_id uuid,
  outcome text,
  code text,
  version bigint,
  previous_runtime text,
  runtime text,
  previous_model text,
  model text,
  model_source text
);
comment on type fleet.move_entry is
  'What fleet.move or fleet.reset_orphans did to one workspace, or would do.
outcome: changed; unchanged (there was nothing to do); recorded (this request_id had done it before, and this is the answer of then); refused (code says
why; nothing was changed); skipped (somebody holds it); gone (it is deleted, or on another runtime).
version, runtime, model: those after it. model_source: why it is this model, as in workspace.change.';

create type fleet.overview_entry as (
  runtime text,
  model_source text,
  workspaces bigint
);
comment on type fleet.overview_entry is
  'How many workspaces have a runtime, and a model that came from there: requested, restored, equivalent, default or none (they have no model),
or kept: longer ago than the history goes back.';

create or replace function keyring.init()
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.strong_kek('runtime_registry.kek');
begin
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

-- Internal. The place in the feed (fleet.changes_after) of the change that makes a workspace this version.

create or replace function workspace.next_position(ws uuid, version bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own_position bigint;
  position_before bigint;
begin
  select
    (n.era << 45) + pg_current_xact_id()::text::bigint,
    (
      select c.position
      from workspace.changes as c
      where c.workspace_id = next_position.ws and c.version = next_position.version - 1
    )
  into own_position, position_before
  from workspace.numbering as n
  where n.made_in = n.tableoid and n.made_by = n.xmin;
  if not found then
    perform workspace.begin_era();
    return workspace.next_position(next_position.ws, next_position.version);
  end if;

  -- Not below our own transaction id: readers are given what lies below the oldest transaction still running, and this is
  -- not visible yet. Not below the change before: its transaction may be the younger one, if it got the workspace first.
  -- (It is over, or our own: the workspace is locked. Equal positions go by version.)
  return greatest(own_position, position_before);
end
$$;
comment on function workspace.next_position(uuid, bigint) is
  'Internal: the position of the change that makes a workspace this version; the workspace is locked, or new.
Both null: the lowest that a change of this transaction can have.';

create or replace function workspace.create_workspace(
  name text,
  runtime text,
  model text default null,
  id uuid default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(create_workspace.name, 'name');
  target constant text collate "C" := registry.clean_text(create_workspace.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(create_workspace.model, 'model');
  request constant text collate "C" := workspace.optional_text(create_workspace.request_id, 'request_id');
  -- A request_id has no line break, so no other actor and request_id make the same text.
  digest bytea := sha256(convert_to(workspace.actor() || E'\n' || request, 'UTF8'));
  moment timestamptz;
  with_key keyring.data_key;
  answer workspace.change;
  absent workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
  stored keyring.sealed_value;
begin
  -- Who repeats a request finds the workspace of the first try, because the id is made of the request's name: a UUID of
  -- version 8 (RFC 9562).
  digest := set_byte(digest, 6, get_byte(digest, 6) & 15 | 128);
  digest := set_byte(digest, 8, get_byte(digest, 8) & 63 | 128);
  absent.workspace_id := coalesce(
    create_workspace.id, encode(substr(digest, 1, 16), 'hex')::uuid, gen_random_uuid()
  );
  absent.version := 0;
  absent.model_is_unreadable := false;
  absent.credentials := '{}';

  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.active_key();
  moment := clock_timestamp();
  answer := workspace.recorded_answer(
    with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;
  perform registry.require_runtime(target);
  decided := workspace.choose_model(with_key, absent, target, wanted, false);

  described := workspace.describe_change(absent, decided, 'create_workspace');
  described.version := 1;
  described.name := called;
  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at)
    values (
      absent.workspace_id, called, target, described.version,
      moment, moment
    );
    if wanted is not null then
      stored := workspace.store_secret(with_key, absent.workspace_id, 'MODEL', wanted);
    end if;
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    perform workspace.record_change(described, absent, stored, false, request);
  exception
    when unique_violation then
      answer := workspace.recorded_answer(
        with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
      );
      if answer.workspace_id is not null then
        return answer;
      end if;
      raise exception using
        errcode = 'PT409',
        message = format('The workspace id %s is taken.', absent.workspace_id),
        detail = jsonb_build_object('code', 'WORKSPACE_EXISTS', 'workspace_id', absent.workspace_id),
        hint = 'Leave id out to get a new one. The id of a deleted workspace stays taken.';
  end;
  return workspace.change_of(described, null, wanted);
end
$$;
comment on function workspace.create_workspace(text, text, text, uuid, text) is
  'Creates a workspace. Strict on the pair: a model that is not registered for the runtime is refused.
name: what people call it; need not be unique. runtime: its runtime. model: its model; null: none yet. id: its id; null: a new one.
request_id: the caller''s name for this request; repeated by the same actor, it gets the recorded answer and creates nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_EXISTS, REQUEST_ID_REUSED, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, REGISTRY_UNAVAILABLE,
ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';

-- Internal.

create or replace function workspace.entry_of(with_key keyring.data_key, recorded workspace.changes)
returns workspace.history_entry
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  entry workspace.history_entry;
begin
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
  entry.name := recorded.name;
  return entry;
end
$$;
comment on function workspace.entry_of(keyring.data_key, workspace.changes) is
  'Internal: a row of changes as whoever looks at the history is told it.';

create or replace function workspace.history(ws uuid)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key keyring.data_key;
  recorded workspace.changes;
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  with_key := keyring.active_key();
  for recorded in
    select c.* from workspace.changes as c where c.workspace_id = history.ws order by c.version
  loop
    return next workspace.entry_of(with_key, recorded);
  end loop;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, ENCRYPTION_KEY_MISSING.';

-- Internal.

create or replace function workspace.secret_name(name text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(secret_name.name, 'name');
begin
  -- What becomes a variable of an agent's environment, or a file: nothing that could pass for another name.
  if translate(called, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./', '') <> '' then
    perform registry.invalid_argument('name', 'may only have ASCII letters, digits and _ - . /');
  end if;

  -- No side door past the registry: agents read MODEL from their environment, some of them whatever its case.
  if upper(called) = 'MODEL' then
    perform registry.invalid_argument('name', 'is MODEL: use set_model, clear_model or get_workspace');
  end if;
  return called;
end
$$;
comment on function workspace.secret_name(text) is
  'Internal: the name of a secret that is not the model, as registry.clean_text leaves it. Raises INVALID_ARGUMENT.';

-- Internal. The secret itself is written before; the workspace's row is locked.

create or replace function workspace.write_secret_change(
  current workspace.snapshot,
  secret text,
  action text,
  changed boolean
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  after workspace.snapshot := write_secret_change.current;
  decided workspace.decision;
  described workspace.changes;
  previous registry.routing;
  routing registry.routing;
  moment constant timestamptz := clock_timestamp();
begin
  -- The pair stays, but credentials may have another provider serve it.
  after.credentials := array_remove(current.credentials, write_secret_change.secret);
  if write_secret_change.action = 'set_secret' then
    after.credentials := after.credentials || write_secret_change.secret;
  end if;
  previous := registry.route(current.runtime, current.model, current.credentials);
  routing := registry.route(after.runtime, after.model, after.credentials);

  decided.runtime := after.runtime;
  decided.model := after.model;
  decided.model_source := case when after.sealed is null then 'none' else 'kept' end;
  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  decided.model_deprecated := routing.deprecated;
  decided.model_sunset_at := routing.sunset_at;
  described := workspace.describe_change(after, decided, write_secret_change.action);
  described.changed := write_secret_change.changed;
  described.billing_changed := described.changed and coalesce(previous.billed_to <> routing.billed_to, false);
  described.secret := write_secret_change.secret;

  if described.changed then
    described.version := current.version + 1;
    update workspace.workspaces as w
    set version = described.version, updated_at = moment
    where w.id = current.workspace_id;
    -- The model stays, readable or not.
    after.model_is_unreadable := false;
    perform workspace.record_change(described, after, (after.sealed, after.key_id), false, null);
  end if;
  return workspace.change_of(described, current.model, current.model);
end
$$;
comment on function workspace.write_secret_change(workspace.snapshot, text, text, boolean) is
  'Internal: records that a secret besides the model was written or removed, and says what that changed.';

create or replace function workspace.set_secret(
  ws uuid,
  name text,
  value text,
  expected_version bigint default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := workspace.secret_name(set_secret.name);
  with_key keyring.data_key;
  current workspace.snapshot;
  stored keyring.sealed_value;
  is_same boolean;
begin
  -- The value is kept as it is: white space and line breaks belong to it.
  if set_secret.value is null then
    perform registry.invalid_argument('value', 'is null');
  elsif set_secret.value = '' then
    perform registry.invalid_argument('value', 'is blank');
  elsif octet_length(set_secret.value) > 1048576 then
    perform registry.invalid_argument('value', 'is longer than 1048576 bytes');
  end if;

  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.active_key();
  current := workspace.lock_workspace(with_key, set_secret.ws);
  if set_secret.expected_version <> current.version then
    perform workspace.version_conflict(current, set_secret.expected_version);
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = current.workspace_id and s.key = called;
  is_same := keyring.unseal(with_key, current.workspace_id, called, stored.sealed, stored.key_id) = set_secret.value;
  if is_same is not true then
    stored := workspace.store_secret(with_key, current.workspace_id, called, set_secret.value);
  end if;
  return workspace.write_secret_change(current, called, 'set_secret', is_same is not true);
end
$$;
comment on function workspace.set_secret(uuid, text, text, bigint) is
  'Gives a workspace a secret, such as a provider''s credential, or replaces it.
ws: the workspace. name: the secret''s name, such as MOONSHOT_API_KEY (ASCII letters, digits and _ - . /). value: kept as it is, 1 to 1048576 bytes. expected_version: refuse unless
the workspace is at this version.
The same value again changes nothing. The name MODEL is refused: the registry judges models, see workspace.set_model.
The names of its secrets tell which provider serves a workspace''s model, where several do (auth_env in the manifest).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was
loaded meanwhile.';

-- Internal. workspace.change_runtime for many workspaces at once: the same decision, by the same functions, and the same
-- rows, written by three statements. The registry and the keyring are held before, the workspaces' rows are locked, unless
-- nothing is to be written.

create or replace function fleet.change_batch(
  ids uuid[],
  from_runtime text,
  runtime text,
  restore boolean,
  request_id text,
  dry_run boolean
)
returns setof fleet.move_entry
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  own_actor constant text := workspace.actor();
  stored record;
  model text;
  current workspace.snapshot;
  target text collate "C";
  decided workspace.decision;
  answer workspace.change;
  entry fleet.move_entry;

  -- A fleet has many workspaces and few distinct pairs: each pair is decided once, and found again under its name. Where
  -- there are many, it is cheaper to forget them now and then.
  pair text;
  place integer;
  places jsonb := '{}';
  verdicts workspace.changes[] := '{}';
  models text[] := '{}';
  refusals text[] := '{}';
  detail text;

  -- What is to be written, a workspace an element; verdict: its place above.
  resealed keyring.sealed_value;
  changed_ids uuid[] := '{}';
  versions bigint[] := '{}';
  chosen integer[] := '{}';
  previous_sealed bytea[] := '{}';
  previous_key_ids integer[] := '{}';
  sealed bytea[] := '{}';
  key_ids integer[] := '{}';
  has_new_model boolean[] := '{}';
  moment timestamptz;
  own_txid xid8;
  own_position bigint;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select
      w.id, w.runtime, w.version, s.sealed, s.key_id,
      array(
        select c.key::text from workspace.secrets as c where c.workspace_id = w.id and c.key <> 'MODEL' order by c.key
      ) as credentials,
      change_batch.request_id is not null and exists (
        select from workspace.changes as c where c.workspace_id = w.id and c.request_id = change_batch.request_id
      ) as is_recorded
    from unnest(change_batch.ids) as asked (id)
    join workspace.workspaces as w on w.id = asked.id
    left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where change_batch.from_runtime is null or w.runtime = change_batch.from_runtime
    order by w.id
  loop
    target := coalesce(change_batch.runtime, stored.runtime);
    model := null;
    if stored.sealed is not null then
      model := keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id);
    end if;
    -- As if it were left as it is.
    entry := (stored.id, 'refused', null, stored.version, stored.runtime, stored.runtime, model, model, null);

    -- This very request was made before: it is not made again, whatever happened since.
    if stored.is_recorded then
      begin
        answer := workspace.recorded_answer(
          with_key, stored.id, change_batch.request_id, 'change_runtime', target, null, change_batch.restore
        );
        entry := (
          stored.id, 'recorded', null, answer.version, answer.previous_runtime, answer.runtime,
          answer.previous_model, answer.model, answer.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          entry.code := detail::jsonb ->> 'code';
      end;
      return next entry;
      continue;
    end if;

    -- No two pairs have the same name: what a model may contain stands at its end.
    pair := stored.runtime || E'\n' || stored.credentials::text || E'\n' || case
      when model is not null then 'model ' || model
      when stored.sealed is not null then 'unreadable'
      else 'none'
    end;
    place := (places -> pair)::integer;
    -- What a workspace had before is its own.
    if place is null or change_batch.restore then
      place := cardinality(verdicts) + 1;
      current := (
        stored.id, stored.runtime, stored.version, stored.sealed, stored.key_id, model,
        stored.sealed is not null and model is null, stored.credentials
      );
      begin
        decided := workspace.choose_model(with_key, current, target, null, change_batch.restore);
        verdicts := verdicts || workspace.describe_change(current, decided, 'change_runtime');
        models := models || decided.model;
        refusals := refusals || null::text;
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          verdicts := verdicts || null::workspace.changes;
          models := models || null::text;
          refusals := refusals || (detail::jsonb ->> 'code');
      end;
      if place % 1000 = 0 then
        places := '{}';
      end if;
      places := places || jsonb_build_object(pair, place);
    end if;

    if refusals[place] is not null then
      entry.code := refusals[place];
      return next entry;
      continue;
    end if;
    entry.runtime := target;
    entry.model := models[place];
    entry.model_source := verdicts[place].model_source;
    entry.outcome := case when verdicts[place].changed then 'changed' else 'unchanged' end;
    -- As a single call, a move is recorded even where there is nothing to do: its replay would otherwise do it later. A
    -- reset is nobody's request to a workspace that is no orphan.
    if verdicts[place].changed or (change_batch.request_id is not null and change_batch.runtime is not null) then
      entry.version := stored.version + 1;
      if not change_batch.dry_run then
        changed_ids := changed_ids || stored.id;
        versions := versions || entry.version;
        chosen := chosen || place;
        previous_sealed := previous_sealed || stored.sealed;
        previous_key_ids := previous_key_ids || stored.key_id;
        -- A model that stays keeps its bytes.
        resealed := (stored.sealed, stored.key_id);
        if entry.model is distinct from model then
          resealed := keyring.seal(with_key, stored.id, 'MODEL', entry.model);
        end if;
        sealed := sealed || resealed.sealed;
        key_ids := key_ids || resealed.key_id;
        has_new_model := has_new_model || (entry.model is distinct from model);
      end if;
    end if;
    return next entry;
  end loop;

  if changed_ids = '{}' then
    return;
  end if;
  moment := clock_timestamp();
  own_txid := pg_current_xact_id();
  own_position := workspace.next_position(null, null);

  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  select n.workspace_id, 'MODEL', n.sealed, n.key_id, moment
  from unnest(changed_ids, sealed, key_ids, has_new_model) as n (workspace_id, sealed, key_id, is_new)
  where n.is_new
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;

  update workspace.workspaces as w
  set runtime = coalesce(change_batch.runtime, w.runtime), version = n.version, updated_at = moment
  from unnest(changed_ids, versions) as n (workspace_id, version)
  where w.id = n.workspace_id;

  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, secret,
    model_deprecated, model_sunset_at, position
  )
  select
    n.workspace_id, n.version, v.action, v.changed, v.previous_runtime, v.runtime,
    n.previous_sealed, n.previous_key_id, n.sealed, n.key_id,
    v.model_source, v.provider, v.billed_to, v.billing_changed,
    change_batch.restore, own_actor, change_batch.request_id, moment, own_txid, null,
    v.model_deprecated, v.model_sunset_at, greatest(own_position, before.position)
  from unnest(changed_ids, versions, chosen, previous_sealed, previous_key_ids, sealed, key_ids)
    as n (workspace_id, version, place, previous_sealed, previous_key_id, sealed, key_id)
  join unnest(verdicts) with ordinality as v on v.ordinality = n.place
  left join workspace.changes as before
    on before.workspace_id = n.workspace_id and before.version = n.version - 1;

  -- As workspace.record_change.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function fleet.change_batch(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes the runtime of many workspaces as workspace.change_runtime would, one by one.
from_runtime: of those that are on it; null: of all. runtime: null: resets those that are orphaned where they are. Returns a row for each, in
the order of their ids; one that is refused stops none of the others.';

-- Internal. What load_registry and restore_registry have in common.

create or replace function fleet.replace_registry(
  manifest jsonb,
  on_orphan text,
  dry_run boolean,
  restored_from bigint
)
returns fleet.registry_load
language plpgsql
set search_path = pg_catalog, pg_temp
-- Compiling its queries takes several times as long as running them.
set jit = off
as $$
declare
  problems jsonb;
  problems_total bigint;
  current_revision bigint;
  current_manifest jsonb;
  routable_pairs fleet.pair[];
  orphaned_pairs fleet.pair[];
  in_use jsonb;
  first_orphans jsonb;
  orphans_total bigint;
  ids uuid[];
  loaded_at timestamptz;
  load fleet.registry_load;
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock: the manifest is judged by itself, and nobody has to wait for that.
  select
    jsonb_agg(jsonb_build_object('path', found.path, 'problem', found.problem)) filter (where found.place <= 100),
    count(*)
  into problems, problems_total
  from registry.manifest_problems(replace_registry.manifest) with ordinality as found (path, problem, place);
  if problems_total > 0 then
    raise exception using
      errcode = 'PT422',
      message = format('The manifest has %s problem(s).', problems_total),
      detail = jsonb_build_object('code', 'REGISTRY_INVALID', 'problems', problems, 'problems_total', problems_total),
      hint = 'Mend them all and load again. Nothing was changed.';
  end if;

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;

  select s.revision, coalesce(r.manifest, '{}')
  into current_revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;
  load.revision := current_revision;
  load.loaded := false;
  load.added := '[]';
  load.removed := '[]';
  load.changed := '[]';
  load.orphans := '[]';
  if replace_registry.manifest = current_manifest then
    return load;
  end if;
  select d.added, d.removed, d.changed
  into load.added, load.removed, load.changed
  from registry.manifest_difference(current_manifest, replace_registry.manifest) as d;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from registry.manifest_runtimes(replace_registry.manifest) as kept where kept.runtime = w.runtime
    )
    group by w.runtime
  ) as used;
  if in_use is not null then
    raise exception using
      errcode = 'PT409',
      message = 'The manifest removes a runtime that workspaces use.',
      detail = jsonb_build_object('code', 'RUNTIME_IN_USE', 'runtimes', in_use),
      hint = 'Keep the runtime in the manifest until its workspaces have another. Nothing was changed.';
  end if;

  -- A fleet has many workspaces and few distinct pairs: each pair is judged once.
  routable_pairs := array(
    select row(s.runtime, s.model)::fleet.pair
    from (select distinct s.runtime, s.model from fleet.stored_models() as s where s.model is not null) as s
    where (registry.route(s.runtime, s.model, '{}')).routable
  );
  begin
    perform registry.replace_registry(replace_registry.manifest);

    orphaned_pairs := array(
      select row(p.runtime, p.model)::fleet.pair
      from unnest(routable_pairs) as p
      where not (registry.route(p.runtime, p.model, '{}')).routable
    );
    if orphaned_pairs <> '{}' then
      load.orphans := fleet.describe_orphans(orphaned_pairs);
    end if;

    if replace_registry.dry_run then
      raise exception using errcode = 'RRDRY', message = 'Dry run: taken back.';
    end if;
  exception
    when sqlstate 'RRDRY' then
      return load;
  end;

  -- What nothing can be found for is refused with reset, too. Without the models: the server log keeps what an error says.
  if replace_registry.on_orphan <> 'keep' then
    select
      jsonb_agg(o.orphan - array['model', 'reset_model', 'reset_source'] order by o.place) filter (where o.place <= 50),
      count(*)
    into first_orphans, orphans_total
    from (
      select item.orphan, row_number() over (order by item.place) as place
      from jsonb_array_elements(load.orphans) with ordinality as item (orphan, place)
      where replace_registry.on_orphan = 'refuse' or item.orphan ->> 'reset_model' is null
    ) as o;
  end if;
  if orphans_total > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', orphans_total),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', first_orphans,
        'orphans_total', orphans_total
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;

  if load.orphans <> '[]' and replace_registry.on_orphan = 'reset' then
    perform keyring.hold();
    ids := array(
      select w.id
      from workspace.workspaces as w
      join jsonb_array_elements(load.orphans) as o on (o ->> 'workspace_id')::uuid = w.id
      order by w.id
      for no key update of w
    );
    perform from fleet.change_batch(ids, null, null, false, null, false) as m;
  end if;

  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  load.revision := current_revision + 1;
  load.loaded := true;
  loaded_at := clock_timestamp();
  update registry.state as s set revision = load.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by, restored_from)
  values (load.revision, replace_registry.manifest, loaded_at, workspace.actor(), replace_registry.restored_from);
  return load;
end
$$;
comment on function fleet.replace_registry(jsonb, text, boolean, bigint) is
  'Internal: makes a valid manifest the registry, as a new revision, and says what that changes and which workspaces it orphans.';

create or replace function fleet.load_registry(
  manifest jsonb,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  end if;
  return fleet.replace_registry(load_registry.manifest, load_registry.on_orphan, load_registry.dry_run, null);
end
$$;
comment on function fleet.load_registry(jsonb, text, boolean) is
  'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
manifest: the whole registry, see sql/registry/manifest.schema.json. The current manifest again is no new revision.
on_orphan: what becomes of workspaces whose model the manifest leaves unroutable. refuse: nothing is loaded. keep: they keep it, and get
another with the next change_runtime, even to the runtime that they have. reset: they get it at
once, in the same transaction, recorded as changes; if there is nothing for one of them, nothing is loaded.
dry_run: answer, with the orphans, but change nothing (it takes the same lock).
It waits for all transactions that have decided by the current registry, and new ones wait for it, until the transaction that calls it ends:
give it a transaction of its own, and on a busy server a lock_timeout. At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED,
ENCRYPTION_KEY_MISSING.';

create or replace function fleet.deprecations()
returns setof fleet.deprecation
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.workspace_id, s.runtime, s.model, m.deprecated_at, m.sunset_at, m.successor::text
    from fleet.stored_models(
      array(select distinct d.runtime::text from registry.models as d where d.deprecated_at is not null)
    ) as s
    join registry.models as m on m.runtime = s.runtime and m.model = s.model
    where m.menu_position is not null and m.deprecated_at is not null
    order by m.sunset_at, m.deprecated_at, s.runtime, s.model, s.workspace_id;
end
$$;
comment on function fleet.deprecations() is
  'Every workspace whose model the registry deprecates, those first whose model ends first. A model that cannot be read is not among them.
Errors: ENCRYPTION_KEY_MISSING.';

-- Internal.

create or replace function fleet.find_orphans(of_runtime text, after uuid, batch integer)
returns setof fleet.orphan
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
  model text;
  pair text;
  place integer;
  found_so_far integer := 0;
  orphan fleet.orphan;

  -- As in fleet.change_batch.
  places jsonb := '{}';
  routable boolean[] := '{}';
  resets workspace.decision[] := '{}';
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where (find_orphans.of_runtime is null or w.runtime = find_orphans.of_runtime)
      and w.id >= coalesce(find_orphans.after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from find_orphans.after
    order by w.id
  loop
    model := keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id);
    if model is not null then
      pair := stored.runtime || E'\n' || model;
      place := (places -> pair)::integer;
      if place is null then
        place := cardinality(routable) + 1;
        if place % 1000 = 0 then
          places := '{}';
        end if;
        places := places || jsonb_build_object(pair, place);
        routable := routable || (registry.route(stored.runtime, model, '{}')).routable;
        resets := resets || case when not routable[place] then fleet.reset_of(stored.runtime, model) end;
      end if;
      continue when routable[place];
    end if;

    orphan.workspace_id := stored.id;
    orphan.runtime := stored.runtime;
    orphan.model := model;
    orphan.problem := case when model is null then 'unreadable' else 'not registered' end;
    orphan.reset_model := case when model is not null then resets[place].model end;
    orphan.reset_source := case when model is not null then resets[place].model_source end;
    return next orphan;
    found_so_far := found_so_far + 1;
    exit when found_so_far = find_orphans.batch;
  end loop;
end
$$;
comment on function fleet.find_orphans(text, uuid, integer) is
  'Internal: the first workspaces, by id, whose model is not routable on their runtime or cannot be read; null arguments mean all.';

create or replace function fleet.orphans(runtime text default null)
returns setof fleet.orphan
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked constant text collate "C" := workspace.optional_text(orphans.runtime, 'runtime');
begin
  if asked is not null then
    perform registry.require_runtime(asked);
  end if;
  return query select o.* from fleet.find_orphans(asked, null, null) as o;
end
$$;
comment on function fleet.orphans(text) is
  'Every workspace whose model is not routable on its runtime now, or cannot be read, and what fleet.reset_orphans would give it.
runtime: on this runtime alone; null: on all.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING.';

-- Internal. What move and reset_orphans begin with.

create or replace function fleet.begin_batch(batch integer, dry_run boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.check_batch(begin_batch.batch);
  if begin_batch.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  -- The workspaces are chosen, locked and read by statements of their own: each has to see what was committed before it.
  perform registry.require_read_committed();
  if not begin_batch.dry_run then
    perform registry.hold();
    perform keyring.hold();
  end if;
end
$$;
comment on function fleet.begin_batch(integer, boolean) is
  'Internal: checks the arguments and, unless nothing is to be written, holds the registry and the keyring.';

-- Internal.

create or replace function fleet.page_of(among uuid[], after uuid, batch integer)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select distinct a.id
    from unnest(page_of.among) as a (id)
    where a.id > page_of.after or (page_of.after is null and a.id is not null)
    order by a.id
    limit page_of.batch
  );
end
$$;
comment on function fleet.page_of(uuid[], uuid, integer) is 'Internal: the first of these ids that come after this one, in order, each once.';

-- Internal. What move and reset_orphans end with. They never wait for a workspace: who holds several, as they do, would
-- otherwise keep single callers waiting behind each other.

create or replace function fleet.change_those_free(
  ids uuid[],
  from_runtime text,
  to_runtime text,
  restore boolean,
  request_id text,
  dry_run boolean
)
returns setof fleet.move_entry
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  free uuid[] := change_those_free.ids;
begin
  if not change_those_free.dry_run then
    free := array(
      select w.id
      from workspace.workspaces as w
      where w.id = any (change_those_free.ids)
      order by w.id
      for no key update skip locked
    );
  end if;

  return query
    with done as materialized (
      select m.*
      from fleet.change_batch(
        free, change_those_free.from_runtime, change_those_free.to_runtime, change_those_free.restore,
        change_those_free.request_id, change_those_free.dry_run
      ) as m
    )
    select d.* from done as d
    union all
    select
      other.id, case when w.id is null then 'gone' else 'skipped' end, null, w.version, w.runtime::text, w.runtime::text,
      null, null, null
    from unnest(change_those_free.ids) as other (id)
    left join workspace.workspaces as w
      on w.id = other.id
      and (change_those_free.from_runtime is null or w.runtime = change_those_free.from_runtime)
    where not exists (select from done as d where d.workspace_id = other.id)
    order by 1;
end
$$;
comment on function fleet.change_those_free(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes those of the workspaces that nobody holds and that are still on from_runtime; a row for each workspace.';

create or replace function fleet.move(
  from_runtime text,
  to_runtime text,
  restore boolean default false,
  request_id text default null,
  after uuid default null,
  batch integer default 1000,
  among uuid[] default null,
  dry_run boolean default false
)
returns setof fleet.move_entry
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  source constant text collate "C" := registry.clean_text(move.from_runtime, 'from_runtime');
  target constant text collate "C" := registry.clean_text(move.to_runtime, 'to_runtime');
  request constant text collate "C" := workspace.optional_text(move.request_id, 'request_id');
  ids uuid[];
begin
  if source = target then
    perform registry.invalid_argument('to_runtime', 'is from_runtime: see fleet.reset_orphans');
  elsif move.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;
  perform fleet.begin_batch(move.batch, move.dry_run);
  perform registry.require_runtime(source);
  perform registry.require_runtime(target);

  ids := fleet.page_of(move.among, move.after, move.batch);
  if move.among is null then
    ids := array(
      select w.id
      from workspace.workspaces as w
      where w.runtime = source
        and w.id >= coalesce(move.after, '00000000-0000-0000-0000-000000000000')
        and w.id is distinct from move.after
      order by w.id
      limit move.batch
    );
  end if;
  return query
    select m.* from fleet.change_those_free(ids, source, target, move.restore, request, move.dry_run) as m;
end
$$;
comment on function fleet.move(text, text, boolean, text, uuid, integer, uuid[], boolean) is
  'Switches the workspaces of one runtime to another, as workspace.change_runtime would switch each.
It does a batch of them, in the order of their ids.
from_runtime, to_runtime: the runtimes. restore: as in change_runtime. request_id: the name of this move, recorded with every change; repeated,
it moves no workspace a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
among: these workspaces alone, a row for each. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. One that is refused, or that somebody holds (skipped), stops none
of the others. The next batch goes on after the last row; give every batch a transaction of its own, and come back to those skipped with among.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';

create or replace function fleet.reset_orphans(
  runtime text default null,
  request_id text default null,
  after uuid default null,
  batch integer default 1000,
  among uuid[] default null,
  dry_run boolean default false
)
returns setof fleet.move_entry
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  source constant text collate "C" := workspace.optional_text(reset_orphans.runtime, 'runtime');
  request constant text collate "C" := workspace.optional_text(reset_orphans.request_id, 'request_id');
  ids uuid[];
begin
  perform fleet.begin_batch(reset_orphans.batch, reset_orphans.dry_run);
  if source is not null then
    perform registry.require_runtime(source);
  end if;

  ids := fleet.page_of(reset_orphans.among, reset_orphans.after, reset_orphans.batch);
  if reset_orphans.among is null then
    ids := array(
      select o.workspace_id from fleet.find_orphans(source, reset_orphans.after, reset_orphans.batch) as o
    );
  end if;
  return query
    select m.* from fleet.change_those_free(ids, source, null, false, request, reset_orphans.dry_run) as m;
end
$$;
comment on function fleet.reset_orphans(text, text, uuid, integer, uuid[], boolean) is
  'Gives orphaned workspaces a model that is registered, as workspace.change_runtime to the runtime that they have would.
That is an equivalent of theirs, or else the runtime''s default. It does a batch of them, in the order of their ids.
runtime: on this runtime alone; null: on all. request_id: the name of this reset, recorded with every change; repeated, it resets no workspace
a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most. among: these workspaces alone,
a row for each, orphaned or not. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. Workspaces whose model cannot be read, or whose runtime has no
default, are refused and stay as they are.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';

create or replace function fleet.overview()
returns setof fleet.overview_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select w.runtime::text, coalesce(origin.model_source, newest.model_source), count(*)
    from workspace.workspaces as w
    join workspace.changes as newest on newest.workspace_id = w.id and newest.version = w.version
    -- A model that was kept came from an earlier change, if that was not pruned.
    left join lateral (
      select c.model_source
      from workspace.changes as c
      where newest.model_source = 'kept'
        and c.workspace_id = w.id
        and c.model_source <> 'kept'
      order by c.version desc
      limit 1
    ) as origin on true
    group by 1, 2
    order by 1, 2;
end
$$;
comment on function fleet.overview() is
  'How many workspaces there are on each runtime, by where their model came from.
Every workspace is counted: seconds, where there are millions. Nothing is opened, and nobody has to wait for it.';

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
