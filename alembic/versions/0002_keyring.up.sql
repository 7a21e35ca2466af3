-- Secrets can be sealed: the keyring, secrets besides the model, and the names of credentials in decisions. What is stored
-- stays as it is, plain, until keyring.init and keyring.reseal are called.

-- Functions that go, or whose arguments or results change.
drop function
  fleet.unroutable_workspaces(),
  keyring.seal(uuid,text,text),
  keyring.unseal(uuid,text,bytea,integer),
  workspace.choose_model(workspace.snapshot,text,text,boolean),
  workspace.lock_workspace(uuid),
  workspace.read_workspace(uuid),
  workspace.recorded_answer(uuid,text,text,text,text,boolean),
  workspace.store_model(uuid,text),
  workspace.write_change(workspace.snapshot,workspace.decision,text,boolean,text);

create sequence keyring.key_ids as integer;
comment on sequence keyring.key_ids is
  'The ids of keys. None is given twice, not even when the keys are lost: something may still refer to them.';

create table keyring.keys (
  id integer not null,
  wrapped bytea not null,
  state text not null,
  created_at timestamptz not null,
  retired_at timestamptz,
  constraint keys_pkey primary key (id)
);
create unique index keys_active_key on keyring.keys (state) where state = 'active';
comment on table keyring.keys is 'The data keys, wrapped by the KEK. One is active and seals; retired ones only open.';
comment on column keyring.keys.wrapped is 'The data key with its id, sealed with the KEK: proof that a KEK fits.';
comment on column keyring.keys.state is 'active or retired.';

create type keyring.data_key as (
  key_id integer,
  secret text
);
comment on type keyring.data_key is 'Internal: an opened data key; all null where the keyring has none.';

create type keyring.reseal_progress as (
  next_after uuid,
  resealed bigint,
  unreadable bigint,
  skipped bigint
);
comment on type keyring.reseal_progress is
  'What a batch of keyring.reseal did.
next_after: where the next batch goes on; null: this was the last. resealed: values that the active key seals now. unreadable: values that
nothing opens, left as they are. skipped: workspaces that somebody held.';

create type keyring.status_entry as (
  key_id integer,
  state text,
  created_at timestamptz,
  retired_at timestamptz,
  secrets bigint,
  history bigint,
  unreadable bigint
);
comment on type keyring.status_entry is
  'A key, and what it seals; never a value.
key_id: the key; null: what is stored plain. state: active, retired, plain, or missing (values refer to it, but the keyring does not have it).
secrets, history: how many secrets, and models in the history, it seals. unreadable: how many of them do not open; null: not tried.';

alter table workspace.changes add column secret text collate "C";
comment on table workspace.changes is
  'Every write to a workspace, in order; nothing is deleted here, and only keyring.reseal rewrites sealed bytes. It outlives its workspace.';
comment on column workspace.changes.secret is 'The secret that set_secret or delete_secret changed; null: the model''s or none.';

alter type workspace.history_entry add attribute secret text;
comment on type workspace.history_entry is
  'One change of a workspace, with its models readable; a model that cannot be read any more is null. secret: the name of the secret that
set_secret or delete_secret changed, never its value.';

create type workspace.secret_entry as (
  name text,
  updated_at timestamptz
);
comment on type workspace.secret_entry is 'A secret that a workspace has; never its value.';

create type workspace.key_use as (
  key_id integer,
  secrets bigint,
  history bigint,
  unreadable bigint
);
comment on type workspace.key_use is 'Internal: how many values a key sealed (null: stored plain), and how many of them do not open.';

alter type workspace.snapshot add attribute credentials text[];
comment on type workspace.snapshot is
  'Internal: what a decision about a workspace starts from. credentials: the names of its secrets besides MODEL.';

-- Internal. Whoever locks a whole table to see all that was written before it calls this first: above READ COMMITTED a
-- snapshot from before the lock would hide what was written until then.

create or replace function registry.require_read_committed()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = 'PT400',
      message = 'This can only be done at the isolation level READ COMMITTED.',
      detail = jsonb_build_object('code', 'ISOLATION_UNSUPPORTED', 'isolation', current_setting('transaction_isolation')),
      hint = 'Begin the transaction with: begin isolation level read committed.';
  end if;
end
$$;
comment on function registry.require_read_committed() is 'Internal: raises ISOLATION_UNSUPPORTED above READ COMMITTED.';

-- pgcrypto may be in any schema: the bodies below name the one where it is. (Functions in the language sql would follow it
-- to another, but cost several times as much in every transaction.)
-- The key is 32 random bytes, so iterating over it (the default S2K, 0.3 ms a call) would protect nothing.

do $$
declare
  pgcrypto text;
begin
  if not exists (select from pg_catalog.pg_extension as e where e.extname = 'pgcrypto') then
    create schema pgcrypto;
    comment on schema pgcrypto is 'The extension pgcrypto, for Runtime Registry.';
    create extension pgcrypto with schema pgcrypto;
  end if;
  select n.nspname
  into pgcrypto
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto';

  execute format(
    $body$
create or replace function keyring.encrypt(value text, key text)
returns bytea
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return %I.pgp_sym_encrypt(encrypt.value, encrypt.key, 's2k-mode=1, cipher-algo=aes256, compress-algo=0');
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.decrypt(message bytea, key text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
  return %I.pgp_sym_decrypt(decrypt.message, decrypt.key);
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.random_key()
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return encode(%I.gen_random_bytes(32), 'hex');
end
$function$
    $body$,
    pgcrypto
  );
end
$$;
comment on function keyring.encrypt(text, text) is 'Internal: an OpenPGP message, as gpg --decrypt opens it.';
comment on function keyring.decrypt(bytea, text) is
  'Internal: what keyring.encrypt was given; an error for any other bytes or key.';
comment on function keyring.random_key() is 'Internal: 32 random bytes in hex.';

-- Internal.

create or replace function keyring.key_missing(problem text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT500',
    message = format('The session''s key-encryption key %s.', key_missing.problem),
    detail = jsonb_build_object('code', 'ENCRYPTION_KEY_MISSING'),
    hint = 'Give the session the setting runtime_registry.kek. Nothing was changed.';
end
$$;
comment on function keyring.key_missing(text) is 'Internal: raises ENCRYPTION_KEY_MISSING.';

-- Internal. Whoever seals calls this first: after registry.hold, before any workspace is locked.

create or replace function keyring.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Held to the end of the transaction, against the exclusive lock of those who change the keys: a key cannot be removed
  -- while somebody seals with it.
  lock table keyring.keys in row share mode;

  -- As in registry.hold: a snapshot from before a change of keys would seal with a key that may be gone.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from keyring.keys as k for share;
  end if;
end
$$;
comment on function keyring.hold() is
  'Internal: keeps the keys as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older than they are.';

-- Internal. Whoever changes the keys calls this first.

create or replace function keyring.lock()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform registry.require_read_committed();

  -- Waits for everybody who is sealing (keyring.hold) and keeps new ones out to the end of the transaction. Who only reads
  -- is not disturbed.
  lock table keyring.keys in exclusive mode;
end
$$;
comment on function keyring.lock() is
  'Internal: keeps everybody else from sealing, and from changing the keys, until the transaction ends. Raises ISOLATION_UNSUPPORTED.';

-- Internal.

create or replace function keyring.session_kek(setting text default 'runtime_registry.kek')
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := current_setting(session_kek.setting, true);
begin
  if kek is null or kek = '' then
    perform keyring.key_missing(format('is not set (%s)', session_kek.setting));
  end if;
  return kek;
end
$$;
comment on function keyring.session_kek(text) is
  'Internal: the key-encryption key that the session brought. Raises ENCRYPTION_KEY_MISSING.';

-- Internal. Only where a KEK is taken into use; afterwards it fits or it does not.

create or replace function keyring.strong_kek(setting text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek(strong_kek.setting);
  bytes bytea;
begin
  begin
    bytes := decode(kek, case when length(kek) = 64 then 'hex' else 'base64' end);
  exception
    when invalid_parameter_value then
      null;  -- The error would show the KEK.
  end;
  -- No S2K could save a passphrase: the messages are made without iterations.
  if octet_length(bytes) is distinct from 32 then
    raise exception using
      errcode = 'PT400',
      message = format('The setting %s is no key-encryption key.', strong_kek.setting),
      detail = jsonb_build_object(
        'code', 'INVALID_ARGUMENT',
        'argument', strong_kek.setting,
        'problem', 'must be 32 random bytes in base64 or hex'
      ),
      hint = 'Run openssl rand -base64 32 to make one.';
  end if;
  return kek;
end
$$;
comment on function keyring.strong_kek(text) is
  'Internal: the session''s KEK if it has the form of one. Raises ENCRYPTION_KEY_MISSING or INVALID_ARGUMENT.';

-- Internal. The id goes inside, so that a wrapped key opens as no other key.

create or replace function keyring.wrap(key keyring.data_key, kek text)
returns bytea
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return keyring.encrypt(format(E'runtime-registry key %s\n%s', key.key_id, key.secret), wrap.kek);
end
$$;
comment on function keyring.wrap(keyring.data_key, text) is 'Internal: a data key, sealed with the KEK.';

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

-- Internal. While the KEK is being changed (keyring.rewrap), sessions bring the new one along as runtime_registry.new_kek:
-- one of the two fits, before and after.

create or replace function keyring.open_key(stored keyring.keys)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key keyring.data_key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.kek', true));
begin
  if key.key_id is null then
    key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.new_kek', true));
  end if;
  return key;
end
$$;
comment on function keyring.open_key(keyring.keys) is
  'Internal: a key of the keyring, opened; null if the session has no key-encryption key that fits.';

-- Internal. It proves that the KEK fits before anything is written: opening the active key is the check.

create or replace function keyring.active_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  active keyring.keys;
  key keyring.data_key;
begin
  select k.* into active from keyring.keys as k where k.state = 'active';
  if not found then
    return null;
  end if;
  key := keyring.open_key(active);
  if key.key_id is null then
    perform keyring.session_kek();
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return key;
end
$$;
comment on function keyring.active_key() is
  'Internal: the key that seals, opened; null if the keyring has none. Raises ENCRYPTION_KEY_MISSING.';

-- Internal. For those who only take something away: a lost KEK must not keep a model in its place.

create or replace function keyring.usable_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  active keyring.keys;
begin
  select k.* into active from keyring.keys as k where k.state = 'active';
  return keyring.open_key(active);
end
$$;
comment on function keyring.usable_key() is
  'Internal: the key that seals, opened; null if the keyring has none or the session no KEK that fits.';

-- Internal.

create or replace function keyring.any_key(key_id integer)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  asked keyring.keys;
begin
  select k.* into asked from keyring.keys as k where k.id = any_key.key_id;
  return keyring.open_key(asked);
end
$$;
comment on function keyring.any_key(integer) is
  'Internal: a key of the keyring, active or retired, opened; null if there is none or the KEK does not fit.';

-- Internal. The caller holds the exclusive lock on keyring.keys and has proved the KEK.

create or replace function keyring.add_key(kek text)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moment constant timestamptz := clock_timestamp();
  key keyring.data_key;
  wrapped bytea;
begin
  update keyring.keys as k set state = 'retired', retired_at = moment where k.state = 'active';

  key.key_id := nextval('keyring.key_ids');
  key.secret := keyring.random_key();
  wrapped := keyring.wrap(key, add_key.kek);
  insert into keyring.keys (id, wrapped, state, created_at)
  values (key.key_id, wrapped, 'active', moment);
  return key.key_id;
end
$$;
comment on function keyring.add_key(text) is 'Internal: a new active key, wrapped by the KEK; the one before is retired.';

-- Internal. Whose secret it is stands inside the message, before the value: sealed bytes that are moved to another row or
-- name do not open. A name has no line break, so no other workspace and name make the same first line.

create or replace function keyring.seal(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if with_key.key_id is null then
    return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
  end if;
  return (
    keyring.encrypt(seal.ws || ' ' || seal.name || E'\n' || seal.value, with_key.secret), with_key.key_id
  )::keyring.sealed_value;
end
$$;
comment on function keyring.seal(keyring.data_key, uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name, sealed with the key; plain without one.';

-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

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

-- Internal.

create or replace function keyring.reseal_value(
  with_key keyring.data_key,
  ws uuid,
  name text,
  sealed bytea,
  key_id integer
)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  value text;
begin
  if reseal_value.key_id is not distinct from with_key.key_id then
    return (reseal_value.sealed, reseal_value.key_id)::keyring.sealed_value;
  end if;
  value := keyring.unseal(with_key, reseal_value.ws, reseal_value.name, reseal_value.sealed, reseal_value.key_id);
  if value is null then
    return null;
  end if;
  return keyring.seal(with_key, reseal_value.ws, reseal_value.name, value);
end
$$;
comment on function keyring.reseal_value(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: a sealed value, sealed by this key; null if it cannot be read.';

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

create or replace function keyring.rotate()
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek();
  active keyring.keys;
  opened keyring.data_key;
begin
  perform keyring.lock();
  select k.* into active from keyring.keys as k where k.state = 'active';
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'The keyring has no key to rotate.',
      detail = jsonb_build_object('code', 'KEYRING_EMPTY'),
      hint = 'Call keyring.init to make the first one.';
  end if;

  -- This very KEK, not runtime_registry.new_kek: one KEK wraps all keys.
  opened := keyring.unwrap(active.id, active.wrapped, kek);
  if opened.key_id is null then
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return keyring.add_key(kek);
end
$$;
comment on function keyring.rotate() is
  'Makes a new active key and retires the one before, which goes on opening what it sealed. Returns the new key''s id.
Call keyring.reseal until it is done, then keyring.retire for the old key.
Errors: ENCRYPTION_KEY_MISSING, KEYRING_EMPTY, ISOLATION_UNSUPPORTED.';

create or replace function keyring.rewrap()
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek();
  new_kek constant text := keyring.strong_kek('runtime_registry.new_kek');
  wrapped keyring.keys;
  key keyring.data_key;
  rewrapped bytea;
  keys bigint := 0;
begin
  perform keyring.lock();
  for wrapped in select k.* from keyring.keys as k order by k.id loop
    key := keyring.unwrap(wrapped.id, wrapped.wrapped, kek);
    if key.key_id is null then
      perform keyring.key_missing('does not fit this keyring');
    end if;
    rewrapped := keyring.wrap(key, new_kek);
    update keyring.keys as k set wrapped = rewrapped where k.id = key.key_id;
    keys := keys + 1;
  end loop;
  return keys;
end
$$;
comment on function keyring.rewrap() is
  'Changes the key-encryption key.
It opens every key with the setting runtime_registry.kek and wraps it with runtime_registry.new_kek (32 random bytes in base64 or hex). No
secret is touched. Returns how many keys there are.
All or nothing. Sessions that have both settings work before and after, so nobody needs to stop: give them both, rewrap, then give them the new
one as runtime_registry.kek. A KEK is a setting, never an argument: arguments end up in logs.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, ISOLATION_UNSUPPORTED.';

-- Internal. One statement, so that the pair is never torn.

create or replace function workspace.read_workspace(with_key keyring.data_key, ws uuid)
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

  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    array(select c.key::text from workspace.secrets as c where c.workspace_id = w.id and c.key <> 'MODEL')
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    snapshot.credentials
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  if snapshot.sealed is not null then
    snapshot.model := keyring.unseal(with_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id);
  end if;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(keyring.data_key, uuid) is
  'Internal: a workspace''s runtime, version, model and names of credentials. Raises INVALID_ARGUMENT or WORKSPACE_NOT_FOUND.';

-- Internal. The registry and the keyring are held before (registry.hold, keyring.hold).

create or replace function workspace.lock_workspace(with_key keyring.data_key, ws uuid)
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
  return workspace.read_workspace(with_key, lock_workspace.ws);
end
$$;
comment on function workspace.lock_workspace(keyring.data_key, uuid) is
  'Internal: locks a workspace until the transaction ends and reads it. Raises as read_workspace does.';

-- Internal. What a request_id settles: a caller that lost our answer asks again and gets the same one.

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

-- Internal. The decision itself. Everything that switches a runtime, or previews it, asks here.

create or replace function workspace.choose_model(
  with_key keyring.data_key,
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
  last keyring.sealed_value;
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    routing := registry.route(choose_model.runtime, choose_model.model, current.credentials);
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
  routing := registry.route(choose_model.runtime, decided.model, current.credentials);

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not routing.routable and choose_model.restore then
    select c.sealed, c.key_id
    into last
    from workspace.changes as c
    where c.workspace_id = current.workspace_id
      and c.runtime = choose_model.runtime
      and c.sealed is not null
    order by c.version desc
    limit 1;
    decided.model := keyring.unseal(with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
    decided.model_source := 'restored';
    routing := registry.route(choose_model.runtime, decided.model, current.credentials);
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
    routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;

  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  return decided;
end
$$;
comment on function workspace.choose_model(keyring.data_key, workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why. Raises MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

-- Internal. The workspace's row is locked before.

create or replace function workspace.store_secret(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Sealed before the insert: a plain value must never reach a table or the WAL.
  stored constant keyring.sealed_value := keyring.seal(with_key, store_secret.ws, store_secret.name, store_secret.value);
  stored_at constant timestamptz := clock_timestamp();
begin
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (store_secret.ws, store_secret.name, stored.sealed, stored.key_id, stored_at)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;
  return stored;
end
$$;
comment on function workspace.store_secret(keyring.data_key, uuid, text, text) is
  'Internal: seals a value and stores it as the workspace''s secret of this name.';

-- Internal.

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
    previous := registry.route(current.runtime, current.model, current.credentials);
    described.billing_changed := coalesce(previous.billed_to <> decided.billed_to, false);
  end if;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet (its version is the current one).';

-- Internal.

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
    restore, actor, request_id, changed_at, txid, secret
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid, described.secret
  );
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes.';

-- Internal. The workspace's row is locked before. All of it or, if any statement fails, nothing.

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
  with_key keyring.data_key;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.usable_key();
  current := workspace.lock_workspace(with_key, clear_model.ws);

  answer := workspace.recorded_answer(with_key, current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current, clear_model.expected_version);
  end if;
  decided.runtime := current.runtime;
  decided.model_source := 'none';
  return workspace.write_change(with_key, current, decided, 'clear_model', false, request);
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
  with_key keyring.data_key;
  current workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
begin
  perform registry.hold();
  perform keyring.hold();
  with_key := keyring.usable_key();
  current := workspace.lock_workspace(with_key, delete_workspace.ws);
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
  with_key constant keyring.data_key := keyring.active_key();
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.require_runtime(target);
  current := workspace.read_workspace(with_key, preview_runtime_change.ws);
  decided := workspace.choose_model(with_key, current, target, wanted, preview_runtime_change.restore);
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

create or replace function workspace.delete_secret(ws uuid, name text, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := workspace.secret_name(delete_secret.name);
  current workspace.snapshot;
begin
  perform registry.hold();
  perform keyring.hold();
  current := workspace.lock_workspace(keyring.usable_key(), delete_secret.ws);
  if delete_secret.expected_version <> current.version then
    perform workspace.version_conflict(current, delete_secret.expected_version);
  end if;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id and s.key = called;
  return workspace.write_secret_change(current, called, 'delete_secret', found);
end
$$;
comment on function workspace.delete_secret(uuid, text, bigint) is
  'Removes a secret of a workspace, readable or not; without such a secret it changes nothing.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.clear_model. expected_version: refuse unless the workspace is at
this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';

create or replace function workspace.get_secret(ws uuid, name text)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := workspace.secret_name(get_secret.name);
  stored keyring.sealed_value;
  value text;
begin
  if get_secret.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = get_secret.ws and s.key = called;
  if not found then
    if not exists (select from workspace.workspaces as w where w.id = get_secret.ws) then
      perform workspace.workspace_not_found(get_secret.ws);
    end if;
    raise exception using
      errcode = 'PT404',
      message = 'The workspace has no secret of this name.',
      detail = jsonb_build_object('code', 'SECRET_NOT_FOUND', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Call workspace.list_secrets to see the names of those it has.';
  end if;

  value := keyring.unseal(keyring.active_key(), get_secret.ws, called, stored.sealed, stored.key_id);
  if value is null then
    raise exception using
      errcode = 'PT500',
      message = 'This secret cannot be read.',
      detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Replace or remove it with workspace.set_secret or workspace.delete_secret.';
  end if;
  return value;
end
$$;
comment on function workspace.get_secret(uuid, text) is
  'The value of a workspace''s secret.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.get_workspace.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_NOT_FOUND, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING.';

create or replace function workspace.list_secrets(ws uuid)
returns setof workspace.secret_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if list_secrets.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  elsif not exists (select from workspace.workspaces as w where w.id = list_secrets.ws) then
    perform workspace.workspace_not_found(list_secrets.ws);
  end if;

  return query
    select s.key::text, s.updated_at
    from workspace.secrets as s
    where s.workspace_id = list_secrets.ws
    order by s.key;
end
$$;
comment on function workspace.list_secrets(uuid) is
  'The names of a workspace''s secrets, MODEL among them; never a value, and no key-encryption key is needed.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';

-- Internal. It goes through what is stored, so it stands above the tables of workspace.

create or replace function workspace.reseal_workspace(with_key keyring.data_key, ws uuid)
returns keyring.reseal_progress
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  active_id constant integer := with_key.key_id;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  secret workspace.secrets;
  change workspace.changes;
  resealed keyring.sealed_value;
begin
  -- Never waits, so that it is no part of a deadlock with somebody who holds several workspaces.
  perform from workspace.workspaces as w where w.id = reseal_workspace.ws for no key update skip locked;
  if not found and exists (select from workspace.workspaces as w where w.id = reseal_workspace.ws) then
    progress.skipped := 1;
    return progress;
  end if;

  for secret in
    select s.*
    from workspace.secrets as s
    where s.workspace_id = reseal_workspace.ws and s.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, secret.workspace_id, secret.key, secret.sealed, secret.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.secrets as s
      set sealed = resealed.sealed, key_id = resealed.key_id
      where s.workspace_id = secret.workspace_id and s.key = secret.key;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws and c.sealed is not null and c.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.sealed, change.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set sealed = resealed.sealed, key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws
      and c.previous_sealed is not null
      and c.previous_key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.previous_sealed, change.previous_key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set previous_sealed = resealed.sealed, previous_key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;
  return progress;
end
$$;
comment on function workspace.reseal_workspace(keyring.data_key, uuid) is
  'Internal: seals with this key what a workspace and its history store plain or under another one.';

-- Internal. What refers to a key of the keyring is stored here.

create or replace function workspace.key_uses(verify boolean)
returns setof workspace.key_use
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := case when key_uses.verify then keyring.active_key() end;
  stored record;
  counted workspace.key_use;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select s.workspace_id, s.key as name, s.sealed, s.key_id, true as is_secret
    from workspace.secrets as s
    union all
    select c.workspace_id, 'MODEL', c.sealed, c.key_id, false
    from workspace.changes as c
    where c.sealed is not null
    union all
    select c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id, false
    from workspace.changes as c
    where c.previous_sealed is not null
  loop
    counted.key_id := stored.key_id;
    counted.secrets := stored.is_secret::integer;
    counted.history := (not stored.is_secret)::integer;
    counted.unreadable := (
      key_uses.verify
      and keyring.unseal(with_key, stored.workspace_id, stored.name, stored.sealed, stored.key_id) is null
    )::integer;
    return next counted;
  end loop;
end
$$;
comment on function workspace.key_uses(boolean) is
  'Internal: a row for every value that is stored: which key sealed it and, with verify, whether it opens.';

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

create or replace function keyring.retire(key_id integer)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  state text;
  used bigint;
begin
  if retire.key_id is null then
    perform registry.invalid_argument('key_id', 'is null');
  end if;

  perform keyring.lock();
  select k.state into state from keyring.keys as k where k.id = retire.key_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The keyring has no key %s.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_NOT_FOUND', 'key_id', retire.key_id),
      hint = 'Call keyring.status to see the keys.';
  end if;
  used := (select count(*) from workspace.key_uses(false) as u where u.key_id = retire.key_id);
  if state = 'active' or used > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The key %s is in use.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_IN_USE', 'key_id', retire.key_id, 'state', state, 'values', used),
      hint = 'Make another key active with keyring.rotate, and move to it what this one sealed with keyring.reseal.';
  end if;
  delete from keyring.keys as k where k.id = retire.key_id;
end
$$;
comment on function keyring.retire(integer) is
  'Removes a key that seals nothing any more. What an older backup holds under it stays readable only with that backup''s keyring.
key_id: the key.
Errors: INVALID_ARGUMENT, KEY_NOT_FOUND, KEY_IN_USE (it is active, or a secret or the history refers to it),
ISOLATION_UNSUPPORTED (only at READ COMMITTED is it seen who refers to it).';

create or replace function keyring.status(verify boolean default false)
returns setof keyring.status_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if status.verify is null then
    perform registry.invalid_argument('verify', 'is null');
  end if;

  return query
    select
      coalesce(k.id, u.key_id),
      case when k.id is null and u.key_id is null then 'plain' else coalesce(k.state, 'missing') end,
      k.created_at,
      k.retired_at,
      coalesce(sum(u.secrets), 0)::bigint,
      coalesce(sum(u.history), 0)::bigint,
      case when status.verify then coalesce(sum(u.unreadable), 0)::bigint end
    from keyring.keys as k
    full join workspace.key_uses(status.verify) as u on u.key_id = k.id
    group by k.id, u.key_id, k.state, k.created_at, k.retired_at
    order by 1 nulls first;
end
$$;
comment on function keyring.status(boolean) is
  'The keys, and how many secrets and models in the history each of them seals; never a value.
verify: open every value too and count those that do not open; this needs the session''s key-encryption key.
It reads all that is stored.
Errors: INVALID_ARGUMENT; ENCRYPTION_KEY_MISSING with verify.';

-- Internal.

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
  routable jsonb := '{}';
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
-- Compiling its queries takes several times as long as running them.
set jit = off
as $$
declare
  problems jsonb;
  problems_total bigint;
  current_revision bigint;
  current_manifest jsonb;
  with_key keyring.data_key;
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

  perform registry.require_read_committed();

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
  with_key := keyring.active_key();

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

  unroutable_before := array(select before.id from fleet.unroutable_workspaces(with_key) as before (id));
  begin
    perform registry.replace_registry(load_registry.manifest, current_revision + 1, workspace.actor());

    select coalesce(
      jsonb_agg(jsonb_build_object('workspace_id', w.id, 'runtime', w.runtime) order by w.id), '[]'
    )
    into load.orphans
    from fleet.unroutable_workspaces(with_key) as after (id)
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

-- Who may call what.
revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.snapshot, workspace.decision, workspace.key_use
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
  keyring.init(),
  keyring.rotate(),
  keyring.rewrap(),
  keyring.reseal(uuid, integer),
  keyring.retire(integer),
  keyring.status(boolean)
to runtime_registry_admin;
