-- Back to secrets that are stored plain. Refused where something sealed would become unreadable.

do $$
declare
  sealed bigint;
begin
  lock table registry.state, keyring.keys, workspace.workspaces in access exclusive mode;
  if current_setting('runtime_registry.discard_workspaces', true) is distinct from 'on'
    and exists (select from workspace.workspaces)
  then
    sealed := (select count(*) from workspace.secrets as s where s.key_id is not null)
      + (select count(*) from workspace.changes as c where coalesce(c.key_id, c.previous_key_id) is not null);
    if sealed > 0 then
      raise exception using
        errcode = 'PT409',
        message = 'There are sealed secrets or models in this database, and the revision before could not open them.',
        detail = jsonb_build_object('code', 'SECRETS_SEALED', 'secrets', sealed),
        hint = 'Stay at this revision, or set runtime_registry.discard_workspaces to on to lose them.';
    end if;
  end if;
end
$$;

-- Functions that are new, or had other arguments or results.
drop function
  fleet.unroutable_workspaces(keyring.data_key),
  keyring.active_key(),
  keyring.add_key(text),
  keyring.any_key(integer),
  keyring.decrypt(bytea,text),
  keyring.encrypt(text,text),
  keyring.hold(),
  keyring.init(),
  keyring.key_missing(text),
  keyring.lock(),
  keyring.open_key(keyring.keys),
  keyring.random_key(),
  keyring.reseal(uuid,integer),
  keyring.reseal_value(keyring.data_key,uuid,text,bytea,integer),
  keyring.retire(integer),
  keyring.rewrap(),
  keyring.rotate(),
  keyring.seal(keyring.data_key,uuid,text,text),
  keyring.session_kek(text),
  keyring.status(boolean),
  keyring.strong_kek(text),
  keyring.unseal(keyring.data_key,uuid,text,bytea,integer),
  keyring.unwrap(integer,bytea,text),
  keyring.usable_key(),
  keyring.wrap(keyring.data_key,text),
  registry.require_read_committed(),
  workspace.choose_model(keyring.data_key,workspace.snapshot,text,text,boolean),
  workspace.delete_secret(uuid,text,bigint),
  workspace.get_secret(uuid,text),
  workspace.key_uses(boolean),
  workspace.list_secrets(uuid),
  workspace.lock_workspace(keyring.data_key,uuid),
  workspace.read_workspace(keyring.data_key,uuid),
  workspace.recorded_answer(keyring.data_key,uuid,text,text,text,text,boolean),
  workspace.reseal_workspace(keyring.data_key,uuid),
  workspace.secret_name(text),
  workspace.set_secret(uuid,text,text,bigint),
  workspace.store_secret(keyring.data_key,uuid,text,text),
  workspace.write_change(keyring.data_key,workspace.snapshot,workspace.decision,text,boolean,text),
  workspace.write_secret_change(workspace.snapshot,text,text,boolean);

-- pgcrypto goes if it came with us and nothing else needs it.
do $$
begin
  if obj_description(to_regnamespace('pgcrypto'), 'pg_namespace') = 'The extension pgcrypto, for Runtime Registry.' then
    drop extension pgcrypto;
    drop schema pgcrypto;
  end if;
end
$$;

drop index keyring.keys_active_key;
drop sequence keyring.key_ids;
drop table keyring.keys;
alter type workspace.snapshot drop attribute credentials;
alter type workspace.history_entry drop attribute secret;
alter table workspace.changes drop column secret;
drop type keyring.data_key;
drop type keyring.reseal_progress;
drop type keyring.status_entry;
drop type workspace.secret_entry;
drop type workspace.key_use;
comment on table workspace.changes is
  'Every write to a workspace, in order; nothing is updated or deleted here. It outlives its workspace.';
comment on type workspace.history_entry is 'One change of a workspace, with its models readable; a model that cannot be read any more is null.';
comment on type workspace.snapshot is 'Internal: what a decision about a workspace starts from.';

create or replace function keyring.seal(ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
end
$$;
comment on function keyring.seal(uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name.';

create or replace function keyring.unseal(ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if unseal.key_id is not null then
    return null;  -- Sealed by a key that this keyring does not have.
  end if;
  return convert_from(unseal.sealed, 'UTF8');
exception
  -- The error would carry some of the bytes into the log.
  when character_not_in_repertoire or untranslatable_character then
    return null;
end
$$;
comment on function keyring.unseal(uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.';

create or replace function workspace.read_workspace(ws uuid)
returns workspace.snapshot
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot workspace.snapshot;
begin
  if read_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select w.id, w.runtime, w.version, s.sealed, s.key_id, keyring.unseal(w.id, s.key, s.sealed, s.key_id)
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id, snapshot.model
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(uuid) is
  'Internal: a workspace''s runtime, version and model. Raises INVALID_ARGUMENT or WORKSPACE_NOT_FOUND.';

create or replace function workspace.lock_workspace(ws uuid)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if lock_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next
  -- statement might see it.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  if not found then
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;
  return workspace.read_workspace(lock_workspace.ws);
end
$$;
comment on function workspace.lock_workspace(uuid) is
  'Internal: locks a workspace until the transaction ends and reads it. Raises as read_workspace does.';

create or replace function workspace.recorded_answer(
  ws uuid,
  request_id text,
  action text,
  runtime text,
  model text,
  restore boolean
)
returns workspace.change
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded workspace.changes;
  answer workspace.change;
begin
  if recorded_answer.request_id is null then
    return null;
  end if;
  select c.*
  into recorded
  from workspace.changes as c
  where c.workspace_id = recorded_answer.ws and c.request_id = recorded_answer.request_id;
  if not found then
    return null;
  end if;

  answer := workspace.change_of(
    recorded,
    keyring.unseal(recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id),
    keyring.unseal(recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id)
  );

  if recorded.sealed is not null and answer.model is null then
    perform workspace.secret_unreadable(recorded_answer.ws);
  end if;

  -- What was asked for can be read off what was done. The version that was expected is a condition of the request, not a
  -- part of it.
  if recorded.action <> recorded_answer.action
    or (recorded_answer.action = 'change_runtime' and recorded.runtime <> recorded_answer.runtime)
    or recorded.restore <> recorded_answer.restore
    or (case when recorded.model_source = 'requested' then answer.model end) is distinct from recorded_answer.model
  then
    raise exception using
      errcode = 'PT422',
      message = 'The request_id was already used for a different request on this workspace.',
      detail = jsonb_build_object('code', 'REQUEST_ID_REUSED', 'workspace_id', recorded_answer.ws),
      hint = 'Take a new request_id for a new request.';
  end if;
  return answer;
end
$$;
comment on function workspace.recorded_answer(uuid, text, text, text, text, boolean) is
  'Internal: the answer recorded for this request, null if there is none. Raises REQUEST_ID_REUSED if it was a different request.';

create or replace function workspace.choose_model(
  current workspace.snapshot,
  runtime text,
  model text,
  restore boolean
)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  decided workspace.decision;
  routing registry.routing;
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    routing := registry.route(choose_model.runtime, choose_model.model, '{}');
    if not routing.routable then
      perform registry.refuse_model(choose_model.runtime);
    end if;
    decided.model := choose_model.model;
    decided.model_source := 'requested';
    decided.provider := routing.provider;
    decided.billed_to := routing.billed_to;
    return decided;
  end if;

  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;

  if current.model is null then
    decided.model_source := 'none';
    return decided;
  end if;

  decided.model := current.model;
  decided.model_source := 'kept';
  routing := registry.route(choose_model.runtime, decided.model, '{}');

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not routing.routable and choose_model.restore then
    decided.model := (
      select keyring.unseal(c.workspace_id, 'MODEL', c.sealed, c.key_id)
      from workspace.changes as c
      where c.workspace_id = current.workspace_id
        and c.runtime = choose_model.runtime
        and c.sealed is not null
      order by c.version desc
      limit 1
    );
    decided.model_source := 'restored';
    routing := registry.route(choose_model.runtime, decided.model, '{}');
  end if;

  if not routing.routable then
    decided.model := (
      select m.model
      from registry.equivalents as known
      join registry.equivalents as equivalent on equivalent.group_number = known.group_number
      join registry.models as m on m.runtime = choose_model.runtime and m.model = equivalent.model
      where known.model = current.model and m.menu_position is not null
      order by m.menu_position
      limit 1
    );
    decided.model_source := 'equivalent';
    if decided.model is null then
      decided.model := (select r.default_model from registry.runtimes as r where r.name = choose_model.runtime);
      decided.model_source := 'default';
    end if;
    if decided.model is null then
      raise exception using
        errcode = 'PT422',
        message = format(
          'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
        ),
        detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
          || registry.valid_models(choose_model.runtime),
        hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
    end if;
    routing := registry.route(choose_model.runtime, decided.model, '{}');
  end if;

  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  return decided;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why. Raises MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

create or replace function workspace.store_model(ws uuid, model text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Sealed before the insert: a plain value must never reach a table or the WAL.
  stored constant keyring.sealed_value := keyring.seal(store_model.ws, 'MODEL', store_model.model);
  stored_at constant timestamptz := clock_timestamp();
begin
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (store_model.ws, 'MODEL', stored.sealed, stored.key_id, stored_at)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;
  return stored;
end
$$;
comment on function workspace.store_model(uuid, text) is 'Internal: seals a model and stores it as the workspace''s secret.';

create or replace function workspace.describe_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text
)
returns workspace.changes
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  described workspace.changes;
  previous registry.routing;
begin
  described.workspace_id := current.workspace_id;
  described.version := current.version;
  described.action := describe_change.action;
  described.changed := decided.runtime is distinct from current.runtime
    or decided.model is distinct from current.model
    or current.model_is_unreadable;
  described.previous_runtime := current.runtime;
  described.runtime := decided.runtime;
  described.model_source := decided.model_source;
  described.provider := decided.provider;
  described.billed_to := decided.billed_to;
  described.billing_changed := false;
  if described.changed and current.model is not null then
    previous := registry.route(current.runtime, current.model, '{}');
    described.billing_changed := coalesce(previous.billed_to <> decided.billed_to, false);
  end if;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet (its version is the current one).';

create or replace function workspace.record_change(
  described workspace.changes,
  current workspace.snapshot,
  stored keyring.sealed_value,
  restore boolean,
  request_id text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  actor constant text := workspace.actor();
  changed_at constant timestamptz := clock_timestamp();
  txid constant xid8 := pg_current_xact_id();
begin
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid
  );
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes.';

create or replace function workspace.write_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean,
  request_id text
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
      stored := workspace.store_model(current.workspace_id, decided.model);
    end if;
  end if;

  described.version := current.version + 1;
  update workspace.workspaces as w
  set runtime = decided.runtime, version = described.version, updated_at = moment
  where w.id = current.workspace_id;

  perform workspace.record_change(described, current, stored, write_change.restore, write_change.request_id);
  return workspace.change_of(described, current.model, decided.model);
end
$$;
comment on function workspace.write_change(workspace.snapshot, workspace.decision, text, boolean, text) is
  'Internal: stores what was decided about an existing workspace, records it and says what was done.';

create or replace function workspace.create_workspace(
  name text,
  runtime text,
  model text default null,
  id uuid default null
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
  moment timestamptz;
  absent workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
  stored keyring.sealed_value;
begin
  absent.workspace_id := coalesce(create_workspace.id, gen_random_uuid());
  absent.version := 0;
  absent.model_is_unreadable := false;

  perform registry.hold();
  moment := clock_timestamp();
  perform registry.require_runtime(target);
  decided := workspace.choose_model(absent, target, wanted, false);

  described := workspace.describe_change(absent, decided, 'create_workspace');
  described.version := 1;
  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at)
    values (
      absent.workspace_id, called, target, described.version,
      moment, moment
    );
    if wanted is not null then
      stored := workspace.store_model(absent.workspace_id, wanted);
    end if;
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    perform workspace.record_change(described, absent, stored, false, null);
  exception
    when unique_violation then
      raise exception using
        errcode = 'PT409',
        message = format('The workspace id %s is taken.', absent.workspace_id),
        detail = jsonb_build_object('code', 'WORKSPACE_EXISTS', 'workspace_id', absent.workspace_id),
        hint = 'Leave id out to get a new one. The id of a deleted workspace stays taken.';
  end;
  return workspace.change_of(described, null, wanted);
end
$$;
comment on function workspace.create_workspace(text, text, text, uuid) is
  'Creates a workspace. Strict on the pair: a model that is not registered for the runtime is refused.
name: what people call it; need not be unique. runtime: its runtime. model: its model; null: none yet. id: its id; null: a new random one.
Errors: INVALID_ARGUMENT, WORKSPACE_EXISTS, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, REGISTRY_UNAVAILABLE. Above READ COMMITTED,
40001 if the registry was loaded meanwhile.';

create or replace function workspace.change_runtime(
  ws uuid,
  runtime text,
  model text default null,
  restore boolean default false,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target constant text collate "C" := registry.clean_text(change_runtime.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(change_runtime.model, 'model');
  request constant text collate "C" := workspace.optional_text(change_runtime.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if change_runtime.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.hold();
  if request is null then
    perform registry.require_runtime(target);
  end if;
  current := workspace.lock_workspace(change_runtime.ws);

  -- A replay is answered before anything is checked: its first try has moved the version, and the runtime may be gone since.
  if request is not null then
    answer := workspace.recorded_answer(
      current.workspace_id, request, 'change_runtime', target, wanted, change_runtime.restore
    );
    if answer.workspace_id is not null then
      return answer;
    end if;
    perform registry.require_runtime(target);
  end if;

  if change_runtime.expected_version <> current.version then
    perform workspace.version_conflict(current, change_runtime.expected_version);
  end if;
  decided := workspace.choose_model(current, target, wanted, change_runtime.restore);
  return workspace.write_change(current, decided, 'change_runtime', change_runtime.restore, request);
end
$$;
comment on function workspace.change_runtime(uuid, text, text, boolean, bigint, text) is
  'Switches a workspace to a runtime and, where its model is not registered there, to a model that is.
The model: model if given (strict: refused unless registered for the runtime); else the current one if it is registered there; else, with
restore, the one this workspace last had on that runtime; else an equivalent of the current one; else the runtime''s default.
A workspace without a model stays without.
ws: the workspace. runtime: the new runtime. expected_version: refuse unless the workspace is at this version. request_id: the
caller''s name for this request; repeated, it gets the recorded answer and changes nothing.
Secret, runtime, version and the row in the history are written together or not at all. Where there is nothing to change, nothing is
written (with a request_id, the answer is recorded).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, NO_DEFAULT_MODEL,
REGISTRY_UNAVAILABLE, REQUEST_ID_REUSED, SECRET_UNREADABLE. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.
Call it as: select * from workspace.change_runtime(...). In (workspace.change_runtime(...)).* it would run once a column.';

create or replace function workspace.set_model(
  ws uuid,
  model text,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text collate "C" := registry.clean_text(set_model.model, 'model');
  request constant text collate "C" := workspace.optional_text(set_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  current := workspace.lock_workspace(set_model.ws);

  answer := workspace.recorded_answer(current.workspace_id, request, 'set_model', null, wanted, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if set_model.expected_version <> current.version then
    perform workspace.version_conflict(current, set_model.expected_version);
  end if;
  decided := workspace.choose_model(current, current.runtime, wanted, false);
  return workspace.write_change(current, decided, 'set_model', false, request);
end
$$;
comment on function workspace.set_model(uuid, text, bigint, text) is
  'Gives a workspace the model that the caller chose.
Strict: a model that is not registered for the workspace''s runtime is refused with the list of those that are; it never chooses another.
ws: the workspace. model: the model id. expected_version: refuse unless the workspace is at this version. request_id: the caller''s
name for this request; repeated, it gets the recorded answer and changes nothing.
It also replaces a model that cannot be read any more.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, MODEL_NOT_REGISTERED, REQUEST_ID_REUSED. Above READ COMMITTED,
40001 if the registry was loaded meanwhile.';

create or replace function workspace.clear_model(
  ws uuid,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  request constant text collate "C" := workspace.optional_text(clear_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  current := workspace.lock_workspace(clear_model.ws);

  answer := workspace.recorded_answer(current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current, clear_model.expected_version);
  end if;
  decided.runtime := current.runtime;
  decided.model_source := 'none';
  return workspace.write_change(current, decided, 'clear_model', false, request);
end
$$;
comment on function workspace.clear_model(uuid, bigint, text) is
  'Removes a workspace''s model, readable or not.
ws: the workspace. expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request;
repeated, it gets the recorded answer and changes nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, REQUEST_ID_REUSED. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';

create or replace function workspace.delete_workspace(ws uuid, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  current workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
begin
  perform registry.hold();
  current := workspace.lock_workspace(delete_workspace.ws);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current, delete_workspace.expected_version);
  end if;

  decided.model_source := 'none';
  described := workspace.describe_change(current, decided, 'delete_workspace');
  described.version := current.version + 1;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  perform workspace.record_change(described, current, null, false, null);
  return workspace.change_of(described, current.model, null);
end
$$;
comment on function workspace.delete_workspace(uuid, bigint) is
  'Deletes a workspace and all its secrets. Its history stays, and its id stays taken.
ws: the workspace. expected_version: refuse unless the workspace is at this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';

create or replace function workspace.get_workspace(ws uuid)
returns workspace.state
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot: the pair, its routing and its version belong together.
  current constant workspace.snapshot := workspace.read_workspace(get_workspace.ws);
  routing registry.routing;
  state workspace.state;
begin
  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;
  if current.model is not null then
    routing := registry.route(current.runtime, current.model, '{}');
  end if;

  select
    w.id, w.name, w.runtime, current.model, routing.routable, routing.provider, routing.billed_to,
    w.version, w.created_at, w.updated_at
  into state
  from workspace.workspaces as w
  where w.id = current.workspace_id;
  return state;
end
$$;
comment on function workspace.get_workspace(uuid) is
  'A workspace as it is: runtime, model, provider, billing and version, all of one moment.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE.';

create or replace function workspace.preview_runtime_change(
  ws uuid,
  runtime text,
  model text default null,
  restore boolean default false
)
returns workspace.change
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target constant text collate "C" := registry.clean_text(preview_runtime_change.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(preview_runtime_change.model, 'model');
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.require_runtime(target);
  current := workspace.read_workspace(preview_runtime_change.ws);
  decided := workspace.choose_model(current, target, wanted, preview_runtime_change.restore);
  return workspace.change_of(
    workspace.describe_change(current, decided, 'change_runtime'), current.model, decided.model
  );
end
$$;
comment on function workspace.preview_runtime_change(uuid, text, text, boolean) is
  'What workspace.change_runtime would answer now, without writing or locking anything.
The arguments are those of change_runtime. The version is the one the answer was decided on: given to change_runtime as expected_version, it makes
sure that the workspace is still the same. (The registry may have changed.)
Errors: as change_runtime.';

create or replace function workspace.history(ws uuid)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  return query
    select
      c.workspace_id,
      c.version,
      c.action,
      c.changed,
      c.previous_runtime::text,
      c.runtime::text,
      keyring.unseal(c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source,
      c.provider,
      c.billed_to,
      c.actor,
      c.request_id::text,
      c.changed_at
    from workspace.changes as c
    where c.workspace_id = history.ws
    order by c.version;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';

create or replace function fleet.unroutable_workspaces()
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A fleet has many workspaces and few distinct pairs: each pair is routed once.
  return query
    with stored as materialized (
      select w.id, w.runtime, keyring.unseal(w.id, s.key, s.sealed, s.key_id) as model
      from workspace.workspaces as w
      join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    ),
    routed as materialized (
      select pair.runtime, pair.model, (registry.route(pair.runtime, pair.model, '{}')).routable as is_routable
      from (select distinct s.runtime, s.model from stored as s) as pair
    )
    select s.id
    from stored as s
    left join routed as r on r.runtime = s.runtime and r.model = s.model
    where r.is_routable is not true;
end
$$;
comment on function fleet.unroutable_workspaces() is
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
-- Compiling its queries takes several times as long as running them.
set jit = off
as $$
declare
  problems jsonb;
  problems_total bigint;
  current_revision bigint;
  current_manifest jsonb;
  unroutable_before uuid[];
  in_use jsonb;
  load fleet.registry_load;
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  elsif load_registry.on_orphan is null or load_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset') then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif load_registry.on_orphan collate "C" <> 'refuse' then
    perform registry.invalid_argument('on_orphan', 'can only be refuse in this release');
  elsif load_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  -- A snapshot from before the lock would hide the workspaces written until then.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = 'PT400',
      message = 'A registry can only be loaded at the isolation level READ COMMITTED.',
      detail = jsonb_build_object('code', 'ISOLATION_UNSUPPORTED', 'isolation', current_setting('transaction_isolation')),
      hint = 'Begin the transaction with: begin isolation level read committed.';
  end if;

  -- Before the lock: the manifest is judged by itself, and nobody has to wait for that.
  select
    jsonb_agg(jsonb_build_object('path', found.path, 'problem', found.problem)) filter (where found.place <= 100),
    count(*)
  into problems, problems_total
  from registry.manifest_problems(load_registry.manifest) with ordinality as found (path, problem, place);
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
  load.orphans := '[]';
  select d.added, d.removed, d.changed
  into load.added, load.removed, load.changed
  from registry.manifest_difference(current_manifest, load_registry.manifest) as d;
  if load_registry.manifest = current_manifest then
    return load;
  end if;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from registry.manifest_runtimes(load_registry.manifest) as kept where kept.runtime = w.runtime
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

  unroutable_before := array(select before.id from fleet.unroutable_workspaces() as before (id));
  begin
    perform registry.replace_registry(load_registry.manifest, current_revision + 1, workspace.actor());

    select coalesce(
      jsonb_agg(jsonb_build_object('workspace_id', w.id, 'runtime', w.runtime) order by w.id), '[]'
    )
    into load.orphans
    from fleet.unroutable_workspaces() as after (id)
    join workspace.workspaces as w on w.id = after.id
    left join unnest(unroutable_before) as before (id) on before.id = after.id
    where before.id is null;

    if load_registry.dry_run then
      raise exception using errcode = 'RRDRY', message = 'Dry run: taken back.';
    end if;
  exception
    when sqlstate 'RRDRY' then
      return load;
  end;

  if load.orphans <> '[]' then
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', jsonb_array_length(load.orphans)),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', jsonb_path_query_array(load.orphans, '$[0 to 49]'),
        'orphans_total', jsonb_array_length(load.orphans)
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;
  load.revision := current_revision + 1;
  load.loaded := true;
  return load;
end
$$;
comment on function fleet.load_registry(jsonb, text, boolean) is
  'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
manifest: the whole registry, see sql/registry/manifest.schema.json. The current manifest again is no new revision.
on_orphan: what becomes of workspaces whose model the manifest leaves unroutable. refuse: nothing is loaded. (keep and reset are not in this release.)
dry_run: answer, with the orphans, but change nothing (it takes the same lock).
It waits for all transactions that have decided by the current registry, and new ones wait for it, until the transaction that calls it ends:
give it a transaction of its own, and on a busy server a lock_timeout. At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED.';

revoke all on schema keyring from runtime_registry_admin;

-- Who may call what.
revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.sealed_value,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.snapshot, workspace.decision
from public;

grant usage on schema registry, workspace
  to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;
grant usage on schema fleet
  to runtime_registry_admin;

-- Readers, and with them everybody.
grant execute on function
  registry.resolve(text, text, text[]),
  registry.default_model(text),
  registry.menu(text),
  registry.list_runtimes(),
  registry.list_models(text),
  workspace.get_workspace(uuid),
  workspace.preview_runtime_change(uuid, text, text, boolean),
  workspace.history(uuid)
to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- Operators, and with them admins.
grant execute on function
  workspace.create_workspace(text, text, text, uuid),
  workspace.change_runtime(uuid, text, text, boolean, bigint, text),
  workspace.set_model(uuid, text, bigint, text),
  workspace.clear_model(uuid, bigint, text),
  workspace.delete_workspace(uuid, bigint)
to runtime_registry_operator, runtime_registry_admin;

-- Admins.
grant execute on function
  fleet.load_registry(jsonb, text, boolean)
to runtime_registry_admin;
