-- Back to a database without access tokens: those there are, are lost.

-- Functions that are new, or had other arguments or results.
drop function
  access.authenticate(bytea),
  access.create_token(text,text,bytea,uuid,timestamp with time zone),
  access.list_tokens(),
  access.revoke_token(text),
  fleet.list_workspaces(uuid,integer),
  keyring.is_whole(bytea),
  keyring.opens(),
  registry.status(),
  workspace.create_workspace(text,text,text,uuid,text),
  workspace.recorded_answer(keyring.data_key,uuid,text,text,text,text,boolean,text),
  workspace.rename_workspace(uuid,text,text,text,boolean,bigint,text),
  workspace.write_change(keyring.data_key,workspace.snapshot,workspace.decision,text,boolean,text,text);

drop table access.tokens;
alter type fleet.feed_entry drop attribute name;
alter type workspace.history_entry drop attribute name;
alter table workspace.changes drop column name;
drop type registry.installation;
drop type access.token;
drop type access.caller;
drop type fleet.workspace_entry;
drop schema access;
comment on type workspace.history_entry is
  'One change of a workspace, with its models readable; a model that cannot be read any more is null. secret: the name of the secret that
set_secret or delete_secret changed, never its value.';

create or replace function keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  label constant text := unseal.ws || ' ' || unseal.name || E'\n';
  fitting keyring.data_key := with_key;
  opened text;
begin
  if unseal.key_id is null then
    return convert_from(unseal.sealed, 'UTF8');
  end if;

  if unseal.key_id is distinct from fitting.key_id then
    fitting := keyring.any_key(unseal.key_id);
  end if;
  opened := keyring.decrypt(unseal.sealed, fitting.secret);
  if starts_with(opened, label) then
    return substr(opened, length(label) + 1);
  end if;
  return null;
exception
  -- Why it does not open is nobody's business (it would be an oracle), and the error could carry bytes into the log.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted then
    return null;
end
$$;
comment on function keyring.unseal(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.
with_key: the key to try first; another key of the keyring is fetched by its id.';

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
  answer.needs_restart := recorded.changed and recorded.action not in ('create_workspace', 'delete_workspace');
  answer.model_deprecated := recorded.model_deprecated;
  answer.model_sunset_at := recorded.model_sunset_at;
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';

create or replace function workspace.recorded_answer(
  with_key keyring.data_key,
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
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id),
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id)
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
comment on function workspace.recorded_answer(keyring.data_key, uuid, text, text, text, text, boolean) is
  'Internal: the answer recorded for this request, null if there is none. Raises REQUEST_ID_REUSED if it was a different request.';

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
  position constant bigint := workspace.next_position(described.workspace_id, described.version);
begin
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, secret,
    model_deprecated, model_sunset_at, position
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid, described.secret,
    described.model_deprecated, described.model_sunset_at, position
  );

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes, at its place in the feed. With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';

create or replace function workspace.write_change(
  with_key keyring.data_key,
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
      stored := workspace.store_secret(with_key, current.workspace_id, 'MODEL', decided.model);
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
comment on function workspace.write_change(keyring.data_key, workspace.snapshot, workspace.decision, text, boolean, text) is
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
  with_key keyring.data_key;
  absent workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
  stored keyring.sealed_value;
begin
  absent.workspace_id := coalesce(create_workspace.id, gen_random_uuid());
  absent.version := 0;
  absent.model_is_unreadable := false;
  absent.credentials := '{}';

  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.active_key();
  moment := clock_timestamp();
  perform registry.require_runtime(target);
  decided := workspace.choose_model(with_key, absent, target, wanted, false);

  described := workspace.describe_change(absent, decided, 'create_workspace');
  described.version := 1;
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
  with_key keyring.data_key;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if change_runtime.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.active_key();
  if request is null then
    perform registry.require_runtime(target);
  end if;
  current := workspace.lock_workspace(with_key, change_runtime.ws);

  -- A replay is answered before anything is checked: its first try has moved the version, and the runtime may be gone since.
  if request is not null then
    answer := workspace.recorded_answer(
      with_key, current.workspace_id, request, 'change_runtime', target, wanted, change_runtime.restore
    );
    if answer.workspace_id is not null then
      return answer;
    end if;
    perform registry.require_runtime(target);
  end if;

  if change_runtime.expected_version <> current.version then
    perform workspace.version_conflict(current, change_runtime.expected_version);
  end if;
  decided := workspace.choose_model(with_key, current, target, wanted, change_runtime.restore);
  return workspace.write_change(with_key, current, decided, 'change_runtime', change_runtime.restore, request);
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
  with_key keyring.data_key;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.active_key();
  current := workspace.lock_workspace(with_key, set_model.ws);

  answer := workspace.recorded_answer(with_key, current.workspace_id, request, 'set_model', null, wanted, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if set_model.expected_version <> current.version then
    perform workspace.version_conflict(current, set_model.expected_version);
  end if;
  decided := workspace.choose_model(with_key, current, current.runtime, wanted, false);
  return workspace.write_change(with_key, current, decided, 'set_model', false, request);
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

create or replace function workspace.get_workspace(ws uuid)
returns workspace.state
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot: the pair, its routing and its version belong together.
  current constant workspace.snapshot := workspace.read_workspace(keyring.active_key(), get_workspace.ws);
  routing registry.routing;
  state workspace.state;
begin
  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;
  if current.model is not null then
    routing := registry.route(current.runtime, current.model, current.credentials);
  end if;

  select
    w.id, w.name, w.runtime, current.model, routing.routable, routing.provider, routing.billed_to,
    w.version, w.created_at, w.updated_at, coalesce(routing.deprecated, false), routing.sunset_at
  into state
  from workspace.workspaces as w
  where w.id = current.workspace_id;
  return state;
end
$$;
comment on function workspace.get_workspace(uuid) is
  'A workspace as it is: runtime, model, provider, billing and version, all of one moment.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE.';

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
    return next entry;
  end loop;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';

create or replace function keyring.unwrap(key_id integer, wrapped bytea, kek text)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  label constant text := format(E'runtime-registry key %s\n', unwrap.key_id);
  opened text;
begin
  opened := keyring.decrypt(unwrap.wrapped, unwrap.kek);
  if starts_with(opened, label) then
    return (unwrap.key_id, substr(opened, length(label) + 1))::keyring.data_key;
  end if;
  return null;
exception
  -- Why it does not open is nobody's business: it would be an oracle.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted then
    return null;
end
$$;
comment on function keyring.unwrap(integer, bytea, text) is 'Internal: a wrapped data key, opened; null if the KEK does not fit.';

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
    perform workspace.record_change(described, current, (current.sealed, current.key_id), false, null);
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
    perform workspace.store_secret(with_key, current.workspace_id, called, set_secret.value);
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

create or replace function keyring.reseal(after uuid default null, batch integer default 1000)
returns keyring.reseal_progress
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key keyring.data_key;
  ids uuid[];
  ws uuid;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  counted keyring.reseal_progress;
begin
  if reseal.batch is null or reseal.batch not between 1 and 100000 then
    perform registry.invalid_argument('batch', 'must be between 1 and 100000');
  end if;

  perform keyring.hold();
  with_key := keyring.active_key();
  if with_key.key_id is null then
    return progress;  -- Without a key there is nothing to seal with, and nothing sealed.
  end if;

  -- A deleted workspace is in changes only.
  ids := array(
    select c.workspace_id
    from workspace.changes as c
    where c.workspace_id > coalesce(reseal.after, '00000000-0000-0000-0000-000000000000')
    group by c.workspace_id
    order by c.workspace_id
    limit reseal.batch
  );
  foreach ws in array ids loop
    counted := workspace.reseal_workspace(with_key, ws);
    progress.resealed := progress.resealed + counted.resealed;
    progress.unreadable := progress.unreadable + counted.unreadable;
    progress.skipped := progress.skipped + counted.skipped;
    progress.next_after := ws;
  end loop;
  if cardinality(ids) < reseal.batch then
    progress.next_after := null;
  end if;
  return progress;
end
$$;
comment on function keyring.reseal(uuid, integer) is
  'Seals with the active key what is stored plain or under another key, the history too.
It does the next batch of workspaces, in the order of their ids. A workspace that somebody holds is not waited for.
after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
Returns where to go on (next_after; null: this was the last batch) and how many values were resealed, are unreadable (left as they are), and
how many workspaces were skipped: run through again until none is. Each batch is worth a transaction of its own.
Errors: INVALID_ARGUMENT, ENCRYPTION_KEY_MISSING.';

create or replace function fleet.feed_end()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.next_position). What is below it is seen, or was rolled back.
  return case
      when n.made_in = n.tableoid and n.made_by = n.xmin
        then (n.era << 45) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      -- Restored from a dump: all that is there came with it, and the next change begins the next era.
      else (n.era + 1) << 45
    end
  from workspace.numbering as n;
end
$$;
comment on function fleet.feed_end() is
  'Internal: where the feed ends for now: no change is ever going to appear below this position.';

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
  with_key constant keyring.data_key := keyring.active_key();
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

  return query
    select
      concat_ws('.', c.position, c.workspace_id, c.version, coalesce((select r.prunings from fleet.retention as r), 0)),
      c.workspace_id,
      c.version,
      c.action,
      c.changed,
      c.previous_runtime::text,
      c.runtime::text,
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source,
      c.provider,
      c.billed_to,
      c.actor,
      c.request_id::text,
      c.changed_at,
      c.secret::text,
      (workspace.change_of(c, null, null)).needs_restart
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit changes_after.batch;
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

revoke all on schema fleet, keyring from runtime_registry_reader, runtime_registry_operator;

-- Who may call what.
revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.numbering, workspace.snapshot, workspace.decision,
  workspace.key_use,
  fleet.retention, fleet.stored_model, fleet.pair, fleet.place
from public;

grant usage on schema registry, workspace
  to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;
grant usage on schema fleet, keyring
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
  workspace.history(uuid),
  workspace.list_secrets(uuid)
to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- Operators, and with them admins.
grant execute on function
  workspace.create_workspace(text, text, text, uuid),
  workspace.change_runtime(uuid, text, text, boolean, bigint, text),
  workspace.set_model(uuid, text, bigint, text),
  workspace.clear_model(uuid, bigint, text),
  workspace.delete_workspace(uuid, bigint),
  workspace.set_secret(uuid, text, text, bigint),
  workspace.get_secret(uuid, text),
  workspace.delete_secret(uuid, text, bigint)
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
  keyring.status(boolean)
to runtime_registry_admin;
