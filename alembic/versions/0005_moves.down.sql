-- Back to loads that refuse or keep orphans, one workspace at a time.

-- Functions that are new, or had other arguments or results.
drop function
  fleet.begin_batch(integer,boolean),
  fleet.change_batch(uuid[],text,text,boolean,text,boolean),
  fleet.change_those_free(uuid[],text,text,boolean,text,boolean),
  fleet.find_orphans(text,uuid,integer),
  fleet.move(text,text,boolean,text,uuid,integer,uuid[],boolean),
  fleet.orphans(text),
  fleet.overview(),
  fleet.page_of(uuid[],uuid,integer),
  fleet.recent_changes(integer),
  fleet.reset_orphans(text,text,uuid,integer,uuid[],boolean),
  workspace.entry_of(keyring.data_key,workspace.changes);

drop type fleet.orphan;
drop type fleet.move_entry;
drop type fleet.overview_entry;

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
  moment timestamptz;
  with_key keyring.data_key;
  answer workspace.change;
  absent workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
  stored keyring.sealed_value;
begin
  -- Who repeats a request finds the workspace of the first try, because the id is made of the request's name.
  absent.workspace_id := coalesce(
    create_workspace.id,
    encode(substr(sha256(convert_to(workspace.actor() || ' ' || request, 'UTF8')), 1, 16), 'hex')::uuid,
    gen_random_uuid()
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
  entry workspace.history_entry;
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  with_key := keyring.active_key();
  for recorded in
    select c.* from workspace.changes as c where c.workspace_id = history.ws order by c.version
  loop
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
    return next entry;
  end loop;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, ENCRYPTION_KEY_MISSING.';

create or replace function fleet.unroutable_workspaces(with_key keyring.data_key)
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored record;
  model text;
  pair text;
  routable jsonb := '{}'::jsonb;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql). A fleet has many workspaces and few
  -- distinct pairs: each pair is routed once.
  for stored in
    select w.id, w.runtime, s.key, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  loop
    model := keyring.unseal(with_key, stored.id, stored.key, stored.sealed, stored.key_id);
    pair := stored.runtime || E'\n' || model;
    if not routable ? pair then
      routable := routable
        || jsonb_build_object(pair, (registry.route(stored.runtime, model, '{}')).routable);
    end if;
    if model is null or not (routable -> pair)::boolean then
      return next stored.id;
    end if;
  end loop;
end
$$;
comment on function fleet.unroutable_workspaces(keyring.data_key) is
  'Internal: the workspaces whose model is not routable on their runtime, or cannot be read.';

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
another with the next change_runtime, even to the runtime that they have. (reset is not in this release.)
dry_run: answer, with the orphans, but change nothing (it takes the same lock).
It waits for all transactions that have decided by the current registry, and new ones wait for it, until the transaction that calls it ends:
give it a transaction of its own, and on a busy server a lock_timeout. At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED.';

create or replace function keyring.init()
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.strong_kek('runtime_registry.kek');
begin
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

create or replace function workspace.secret_name(name text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(secret_name.name, 'name');
begin
  -- No side door past the registry: agents read MODEL from their environment, some of them whatever its case.
  if upper(called) = 'MODEL' then
    perform registry.invalid_argument('name', 'is MODEL: use set_model, clear_model or get_workspace');
  end if;
  return called;
end
$$;
comment on function workspace.secret_name(text) is
  'Internal: the name of a secret that is not the model, as registry.clean_text leaves it. Raises INVALID_ARGUMENT.';

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
ws: the workspace. name: the secret''s name, such as MOONSHOT_API_KEY. value: kept as it is, 1 to 1048576 bytes. expected_version: refuse unless
the workspace is at this version.
The same value again changes nothing. The name MODEL is refused: the registry judges models, see workspace.set_model.
The names of its secrets tell which provider serves a workspace''s model, where several do (auth_env in the manifest).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was
loaded meanwhile.';

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
  'Internal: the position of the change that makes a workspace this version; the workspace is locked, or new.';

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
  loaded_at timestamptz;
  load fleet.registry_load;
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.on_orphan collate "C" = 'reset' then
    perform registry.invalid_argument('on_orphan', 'can only be refuse or keep in this release');
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

  -- on_orphan reset goes here: each of load.orphans gets what is foretold for it (fleet.reset_of).
  if load.orphans <> '[]' and replace_registry.on_orphan = 'refuse' then
    -- Without their models: the server log keeps what an error says.
    first_orphans := (
      select jsonb_agg(o.item - array['model', 'reset_model', 'reset_source'] order by o.place)
      from jsonb_array_elements(load.orphans) with ordinality as o (item, place)
      where o.place <= 50
    );
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', jsonb_array_length(load.orphans)),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', first_orphans,
        'orphans_total', jsonb_array_length(load.orphans)
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
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
  'Every workspace whose model the registry deprecates, those first whose model ends first. A model that cannot be read is not among them.';

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
  fleet.list_workspaces(uuid, integer)
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
