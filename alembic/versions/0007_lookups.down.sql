-- Back to more lookups.

-- Calls first, as in every change of the registry: they hold this, then workspaces, and may read more of the registry later.
lock table registry.state in exclusive mode;

-- Functions that are new, or had other arguments.
drop function
  keyring.seal_all(keyring.data_key,uuid[],text,text[]),
  keyring.unlock(keyring.keys,boolean,uuid,text,bytea,integer),
  keyring.unseal_all(keyring.data_key,uuid[],text,bytea[],integer[]),
  registry.look_up(text,text,text),
  workspace.credentials(uuid),
  workspace.describe_change(workspace.snapshot,workspace.decision,text),
  workspace.keep_pair(workspace.snapshot,text[]),
  workspace.own_position(),
  workspace.route(uuid,text,text),
  workspace.write_change(workspace.snapshot,workspace.decision,text,boolean,text,text,text,keyring.sealed_value);

alter type workspace.decision
  drop attribute provider,
  drop attribute billed_to,
  drop attribute model_deprecated,
  drop attribute model_sunset_at,
  drop attribute changed,
  drop attribute billing_changed;
alter type workspace.decision add attribute routing registry.routing;
comment on type workspace.decision is 'Internal: the pair that a workspace shall have, and why.';

alter type workspace.snapshot drop attribute next_position;
alter type workspace.snapshot drop attribute with_key;
alter type workspace.snapshot
  add attribute credentials text[],
  add attribute with_key keyring.data_key;
comment on type workspace.snapshot is
  'Internal: what a decision about a workspace starts from. credentials: the names of its secrets besides MODEL. with_key: the key that seals.';

drop type registry.finding, keyring.unlocked;
alter table workspace.workspaces drop column position;
alter table registry.runtimes drop column folds_case;
alter table registry.models drop column is_contested, drop column has_equivalents;

comment on column workspace.changes.position is
  'Its place in the feed, see workspace.next_position; 0: made before there was a feed.';

-- Internal. The rule behind resolve(); the model is taken as it is.

create or replace function registry.route(runtime text, model text, auth_env text[])
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Plans are cached while the registry is small, and have to stay good when it is large.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  routing registry.routing;
begin
  -- An exact id. Of several arms that list it, the only one that the credentials open wins, else the first.
  if route.auth_env = '{}' then
    select true, m.provider, m.billed_to, m.deprecated_at <= now(), m.sunset_at
    into routing
    from registry.models as m
    where m.runtime = route.runtime and m.model = route.model and m.menu_position is not null;
  else
    select true, candidate.provider, candidate.billed_to, candidate.deprecated_at <= now(), candidate.sunset_at
    into routing
    from (
      select
        m.provider,
        m.billed_to,
        m.deprecated_at,
        m.sunset_at,
        m.arm_position,
        p.auth_env && route.auth_env as is_open,
        count(*) filter (where p.auth_env && route.auth_env) over () as open_arms
      from registry.models as m
      join registry.providers as p on p.name = m.provider
      where m.runtime = route.runtime and m.model = route.model
    ) as candidate
    order by (candidate.is_open and candidate.open_arms = 1) desc, candidate.arm_position
    limit 1;
  end if;
  if found then
    return routing;
  end if;

  -- A prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind only the greatest
  -- pattern that is not above the id can claim it: one step down an index, however many there are.
  select
    claimed.provider is not null or (r.model_policy = 'any' and route.model is not null),
    claimed.provider,
    claimed.billed_to
  into routing.routable, routing.provider, routing.billed_to
  from registry.runtimes as r
  left join (
    (values (false, route.model collate "C"), (true, lower(route.model collate "C"))) as asked (case_folded, id)
    cross join lateral (
      select c.pattern, c.is_prefix, c.provider, c.billed_to
      from registry.claims as c
      where c.runtime = route.runtime and c.case_folded = asked.case_folded and c.pattern <= asked.id
      order by c.pattern desc
      limit 1
    ) as claimed
  ) on case when claimed.is_prefix then starts_with(asked.id, claimed.pattern) else asked.id = claimed.pattern end
  where r.name = route.runtime;
  routing.routable := coalesce(routing.routable, false);
  return routing;
end
$$;
comment on function registry.route(text, text, text[]) is
  'Internal: whether a runtime can run a model, by which provider, and who is billed.';

-- Internal. A registry is replaced in two steps: its rows are made of the manifest while nobody has to wait for that, and
-- written when the caller holds the exclusive lock on registry.state.

create or replace function registry.manifest_content(manifest jsonb)
returns registry.content
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
-- A plan of its own would hold the manifest several times. How many rows there are is not known to the planner: always by
-- hash.
set plan_cache_mode = force_generic_plan
set enable_nestloop = off
as $$
declare
  content registry.content;
begin
  content.providers := array(
    select row(p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive)::registry.providers
    from registry.manifest_providers(manifest_content.manifest) as p
  );

  content.arms := array(
    select row(a.runtime, a.arm_index + 1, a.provider)::registry.arms
    from registry.manifest_arms(manifest_content.manifest) as a
  );

  content.models := array(
    select row(
      m.runtime,
      m.model,
      m.arm_index + 1,
      m.provider,
      case when m.is_first then
        row_number() over (partition by m.runtime, m.is_first order by m.arm_index, m.model_index)
      end,
      coalesce(there.deprecated_at, everywhere.deprecated_at),
      coalesce(there.sunset_at, everywhere.sunset_at),
      coalesce(there.successor, everywhere.successor),
      p.billed_to
    )::registry.models
    from (
      select
        listed.*,
        row_number() over (partition by listed.runtime, listed.model order by listed.arm_index, listed.model_index) = 1
          as is_first,
        row_number() over (
          partition by listed.runtime, listed.model, listed.arm_index order by listed.model_index
        ) as occurrence_on_arm
      from (
        select m.runtime collate "C" as runtime, m.model collate "C" as model, m.arm_index, m.model_index, m.provider
        from registry.manifest_models(manifest_content.manifest) as m
      ) as listed
    ) as m
    left join registry.manifest_deprecated(manifest_content.manifest) as there
      on there.model = m.model and there.runtime = m.runtime
    left join registry.manifest_deprecated(manifest_content.manifest) as everywhere
      on everywhere.model = m.model and everywhere.is_everywhere
    join unnest(content.providers) as p on p.name = m.provider
    where m.occurrence_on_arm = 1
  );

  content.runtimes := array(
    select row(
      named.runtime,
      named.runtime_index + 1,
      named.model_policy,
      coalesce(named.default_model, menu.first),
      coalesce(menu.size, 0)
    )::registry.runtimes
    from registry.manifest_runtimes(manifest_content.manifest) as named
    left join (
      select m.runtime, min(m.model) filter (where m.menu_position = 1) as first, count(m.menu_position) as size
      from unnest(content.models) as m
      group by m.runtime
    ) as menu on menu.runtime = named.runtime
  );

  content.claims := array(
    select row(a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider, p.billed_to)::registry.claims
    from registry.manifest_uncovered(manifest_content.manifest) as u
    join unnest(content.arms) as a on a.provider = u.provider
    join unnest(content.providers) as p on p.name = u.provider
  );

  content.equivalents := array(
    select row(e.model, e.group_index + 1)::registry.equivalents
    from registry.manifest_equivalents(manifest_content.manifest) as e
  );

  return content;
end
$$;
comment on function registry.manifest_content(jsonb) is
  'Internal: the rows that a valid manifest makes of the registry''s tables.';

-- Rows that stay as they are are not touched: a small change of a large registry is a small write.
create or replace function registry.replace_registry(content registry.content)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
-- How many rows there are is not known to the planner, and comparing whole rows in order is slow: always by hash.
set enable_nestloop = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
  delete from registry.providers as old
  where not exists (select from unnest(replace_registry.content.providers) as new where new = old);
  insert into registry.providers
  select new.* from unnest(replace_registry.content.providers) as new
  where not exists (select from registry.providers as old where old = new);

  delete from registry.arms as old
  where not exists (select from unnest(replace_registry.content.arms) as new where new = old);
  insert into registry.arms
  select new.* from unnest(replace_registry.content.arms) as new
  where not exists (select from registry.arms as old where old = new);

  delete from registry.models as old
  where not exists (select from unnest(replace_registry.content.models) as new where new = old);
  insert into registry.models
  select new.* from unnest(replace_registry.content.models) as new
  where not exists (select from registry.models as old where old = new);

  delete from registry.claims as old
  where not exists (select from unnest(replace_registry.content.claims) as new where new = old);
  insert into registry.claims
  select new.* from unnest(replace_registry.content.claims) as new
  where not exists (select from registry.claims as old where old = new);

  delete from registry.equivalents as old
  where not exists (select from unnest(replace_registry.content.equivalents) as new where new = old);
  insert into registry.equivalents
  select new.* from unnest(replace_registry.content.equivalents) as new
  where not exists (select from registry.equivalents as old where old = new);

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as old
  where not exists (select from unnest(replace_registry.content.runtimes) as new where new.name = old.name);
  insert into registry.runtimes
  select new.* from unnest(replace_registry.content.runtimes) as new
  where not exists (select from registry.runtimes as old where old = new)
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size;
end
$$;
comment on function registry.replace_registry(registry.content) is
  'Internal: makes these rows the registry.';

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
create or replace function keyring.open(message bytea, key text, label text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
  opened text;
begin
  opened := %I.pgp_sym_decrypt(open.message, open.key);
  return case when starts_with(opened, open.label) and keyring.is_whole(open.message) then
    substr(opened, length(open.label) + 1)
  end;
exception
  -- Why it does not open is nobody's business (it would be an oracle), and the error could carry bytes into the log.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted or array_subscript_error then
    return null;
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
comment on function keyring.open(bytea, text, text) is
  'Internal: what stands after the label in what keyring.encrypt was given; null for any other bytes, key or label.';
comment on function keyring.random_key() is 'Internal: 32 random bytes in hex.';

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

-- Internal.

create or replace function workspace.optional_text(value text, argument text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only null means "not given": a blank value is a mistake, never a silent null.
  return case when optional_text.value is not null then registry.clean_text(optional_text.value, optional_text.argument) end;
end
$$;
comment on function workspace.optional_text(text, text) is 'Internal: null, or the value as registry.clean_text leaves it.';

-- Internal. One statement, so that the pair is never torn.

create or replace function workspace.read_workspace(ws uuid, needs_key boolean default true)
returns workspace.snapshot
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot workspace.snapshot;
  active keyring.keys;
begin
  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    array(select c.key::text from workspace.secrets as c where c.workspace_id = w.id and c.key <> 'MODEL'),
    k.id, k.wrapped
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    snapshot.credentials,
    active.id, active.wrapped
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  left join keyring.keys as k on k.state = 'active'
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  snapshot.with_key := keyring.open_key(active, read_workspace.needs_key);
  if snapshot.sealed is not null then
    snapshot.model := keyring.unseal(
      snapshot.with_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id
    );
  end if;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(uuid, boolean) is
  'Internal: a workspace''s runtime, version, model and names of credentials, and the key that seals.
Raises INVALID_ARGUMENT, WORKSPACE_NOT_FOUND and, unless it can do without the key, ENCRYPTION_KEY_MISSING.';

-- Internal. Whoever changes a workspace calls this first.

create or replace function workspace.lock_workspace(
  ws uuid,
  runtime text default null,
  needs_key boolean default true
)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform workspace.hold();

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next
  -- statement might see it.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  if not found then
    if lock_workspace.runtime is not null then
      perform registry.require_runtime(lock_workspace.runtime);
    end if;
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;
  return workspace.read_workspace(lock_workspace.ws, lock_workspace.needs_key);
end
$$;
comment on function workspace.lock_workspace(uuid, text, boolean) is
  'Internal: keeps the registry, the keyring and a workspace as they are until the transaction ends, and reads the workspace.
Raises as read_workspace does; of a workspace that is not there it says first, where a runtime is given, that this is not there either.';

-- Internal. The decision itself. Everything that switches a runtime, or previews it, asks here.

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
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  decided workspace.decision;
  last keyring.sealed_value;
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    decided.model := choose_model.model;
    decided.model_source := 'requested';
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
    if not (decided.routing).routable then
      perform registry.require_runtime(choose_model.runtime);
      perform registry.refuse_model(choose_model.runtime);
    end if;
    return decided;
  end if;

  if current.model is null then
    perform registry.require_runtime(choose_model.runtime);
    if current.model_is_unreadable then
      perform workspace.secret_unreadable(current.workspace_id);
    end if;
    decided.model_source := 'none';
    return decided;
  end if;

  decided.model := current.model;
  decided.model_source := 'kept';
  decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not (decided.routing).routable and choose_model.restore then
    select c.sealed, c.key_id
    into last
    from workspace.changes as c
    where c.workspace_id = current.workspace_id
      and c.runtime = choose_model.runtime
      and c.sealed is not null
    order by c.version desc
    limit 1;
    decided.model := keyring.unseal(current.with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
    decided.model_source := 'restored';
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;

  if not (decided.routing).routable then
    select
      coalesce(equivalent.model, r.default_model),
      case when equivalent.model is null then 'default' else 'equivalent' end
    into decided.model, decided.model_source
    from registry.runtimes as r
    left join lateral (
      select alike.model
      from registry.equivalents as alike
      -- Limited so that it stays what it is, a lookup for each, and is not turned into a walk along the menu.
      cross join lateral (
        select m.menu_position
        from registry.models as m
        where m.runtime = r.name and m.model = alike.model and m.menu_position is not null
        limit 1
      ) as listed
      where alike.group_number = (select e.group_number from registry.equivalents as e where e.model = current.model)
      order by listed.menu_position
      limit 1
    ) as equivalent on true
    where r.name = choose_model.runtime;
    if decided.model is null then
      perform registry.require_runtime(choose_model.runtime);
      raise exception using
        errcode = 'PT422',
        message = format(
          'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
        ),
        detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
          || registry.valid_models(choose_model.runtime),
        hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
    end if;
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;
  return decided;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why.
Raises RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

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
begin
  described.workspace_id := current.workspace_id;
  described.version := current.version;
  described.action := describe_change.action;
  described.changed := decided.runtime is distinct from current.runtime
    or decided.model is distinct from current.model
    or current.model_is_unreadable;
  described.previous_runtime := current.runtime;
  described.runtime := decided.runtime;
  if not current.model_is_unreadable then
    described.previous_sealed := current.sealed;
    described.previous_key_id := current.key_id;
  end if;
  described.model_source := decided.model_source;
  described.provider := (decided.routing).provider;
  described.billed_to := (decided.routing).billed_to;
  described.billing_changed := described.changed and current.model is not null and coalesce(
    (registry.route(current.runtime, current.model, current.credentials)).billed_to <> described.billed_to, false
  );
  described.restore := false;
  described.model_deprecated := coalesce((decided.routing).deprecated, false);
  described.model_sunset_at := (decided.routing).sunset_at;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet: its version is the current one, and the model after is missing.';

-- Internal. Only workspace.next_position calls this, before anything is written in this cluster: so no position of the era
-- before is still to come.

create or replace function workspace.begin_era()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever comes second waits for the first and then finds nothing left to do; above READ COMMITTED it gets 40001.
  update workspace.numbering as n
  set era = n.era + 1
  where (n.made_in = n.tableoid and n.made_by = n.xmin) is not true;
  if found then
    update workspace.numbering as n set made_in = n.tableoid, made_by = n.xmin;
  end if;
end
$$;
comment on function workspace.begin_era() is
  'Internal: makes the positions of changes go on above all that came with a dump, whatever transaction ids are here.';

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
  where n.singleton and n.made_in = n.tableoid and n.made_by = n.xmin;
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

-- Internal. The workspace's row is locked before, or new. All of it or, if it fails, nothing.

create or replace function workspace.record_change(
  described workspace.changes,
  secret_name text default null,
  secret keyring.sealed_value default null
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
  -- One statement: three would cost much more. (With the update at its end it can be distributed, too.)
  with stored as (
    insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
    select described.workspace_id, record_change.secret_name, secret.sealed, secret.key_id, changed_at
    where record_change.secret_name is not null
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed,
      key_id = excluded.key_id,
      updated_at = excluded.updated_at
  ),
  recorded as (
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed, previous_key_id, sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid, secret,
      model_deprecated, model_sunset_at, position, name
    )
    values (
      described.workspace_id, described.version, described.action, described.changed,
      described.previous_runtime, described.runtime,
      described.previous_sealed, described.previous_key_id, described.sealed, described.key_id,
      described.model_source, described.provider, described.billed_to, described.billing_changed,
      described.restore, actor, described.request_id, changed_at, txid, described.secret,
      described.model_deprecated, described.model_sunset_at, position, described.name
    )
  )
  -- Not a workspace that this very change has made, or deleted.
  update workspace.workspaces as w
  set
    name = coalesce(described.name, w.name),
    runtime = described.runtime,
    version = described.version,
    updated_at = changed_at
  where w.id = described.workspace_id and w.version < described.version;

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function workspace.record_change(workspace.changes, text, keyring.sealed_value) is
  'Internal: writes a change: the workspace''s secret of this name (null: none), its own row and the history''s.
With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';

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
    write_change.current, write_change.decided, write_change.action
  );
  stored keyring.sealed_value := (current.sealed, current.key_id);
  stored_as text;
begin
  described.restore := write_change.restore;
  described.request_id := write_change.request_id;
  described.name := write_change.name;
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
  if decided.model is null and current.sealed is not null then
    delete from workspace.secrets as s where s.workspace_id = described.workspace_id and s.key = 'MODEL';
    stored := null;
  elsif decided.model is distinct from current.model then
    stored := keyring.seal(current.with_key, current.workspace_id, 'MODEL', decided.model);
    stored_as := 'MODEL';
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
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := registry.clean_text(create_workspace.name, 'name');
  target constant text collate "C" := registry.clean_text(create_workspace.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(create_workspace.model, 'model');
  request constant text collate "C" := workspace.optional_text(create_workspace.request_id, 'request_id');
  -- A request_id has no line break, so no other actor and request_id make the same text.
  digest bytea := sha256(convert_to(workspace.actor() || E'\n' || request, 'UTF8'));
  moment timestamptz;
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

  perform workspace.hold();
  absent.with_key := keyring.active_key();
  moment := clock_timestamp();
  answer := workspace.recorded_answer(
    absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;
  decided := workspace.choose_model(absent, target, wanted, false);

  described := workspace.describe_change(absent, decided, 'create_workspace');
  described.version := 1;
  described.name := called;
  described.request_id := request;
  if wanted is not null then
    -- Sealed before it is written: a plain value must never reach a table or the WAL.
    stored := keyring.seal(absent.with_key, absent.workspace_id, 'MODEL', wanted);
    described.sealed := stored.sealed;
    described.key_id := stored.key_id;
  end if;
  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at)
    values (absent.workspace_id, called, target, described.version, moment, moment);
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    perform workspace.record_change(described, case when wanted is not null then 'MODEL' end, stored);
  exception
    when unique_violation then
      answer := workspace.recorded_answer(
        absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
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
set enable_seqscan = off
set jit = off
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

  current := workspace.lock_workspace(change_runtime.ws, target);

  -- A replay is answered before anything is checked: its first try has moved the version, and the runtime may be gone since.
  if request is not null then
    answer := workspace.recorded_answer(
      current.with_key, current.workspace_id, request, 'change_runtime', target, wanted, change_runtime.restore
    );
    if answer.workspace_id is not null then
      return answer;
    end if;
  end if;

  if change_runtime.expected_version <> current.version then
    perform registry.require_runtime(target);
    perform workspace.version_conflict(current.workspace_id, current.version, change_runtime.expected_version);
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
REGISTRY_UNAVAILABLE, REQUEST_ID_REUSED, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.
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
set enable_seqscan = off
set jit = off
as $$
declare
  wanted constant text collate "C" := registry.clean_text(set_model.model, 'model');
  request constant text collate "C" := workspace.optional_text(set_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(set_model.ws);

  answer := workspace.recorded_answer(current.with_key, current.workspace_id, request, 'set_model', null, wanted, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if set_model.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, set_model.expected_version);
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
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, MODEL_NOT_REGISTERED, REQUEST_ID_REUSED, ENCRYPTION_KEY_MISSING. Above
READ COMMITTED, 40001 if the registry was loaded meanwhile.';

create or replace function workspace.clear_model(
  ws uuid,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  request constant text collate "C" := workspace.optional_text(clear_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(clear_model.ws, needs_key => false);

  answer := workspace.recorded_answer(current.with_key, current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, clear_model.expected_version);
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

create or replace function workspace.rename_workspace(
  ws uuid,
  name text,
  runtime text default null,
  model text default null,
  restore boolean default false,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := registry.clean_text(rename_workspace.name, 'name');
  target constant text collate "C" := workspace.optional_text(rename_workspace.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(rename_workspace.model, 'model');
  request constant text collate "C" := workspace.optional_text(rename_workspace.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if rename_workspace.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  elsif rename_workspace.restore and target is null then
    perform registry.invalid_argument('restore', 'needs a runtime');
  end if;

  current := workspace.lock_workspace(rename_workspace.ws);

  answer := workspace.recorded_answer(
    current.with_key, current.workspace_id, request, 'rename_workspace', target, wanted, rename_workspace.restore, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;

  if target is not null then
    perform registry.require_runtime(target);
  end if;
  if rename_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, rename_workspace.expected_version);
  end if;

  if target is not null or wanted is not null then
    decided := workspace.choose_model(
      current, coalesce(target, current.runtime), wanted, rename_workspace.restore
    );
  elsif current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  else
    -- The pair stays as it is, even one that a newer registry does not have.
    decided.runtime := current.runtime;
    decided.model := current.model;
    decided.model_source := case when current.model is null then 'none' else 'kept' end;
    decided.routing := registry.route(current.runtime, current.model, current.credentials);
  end if;
  return workspace.write_change(
    current, decided, 'rename_workspace', rename_workspace.restore, request, called
  );
end
$$;
comment on function workspace.rename_workspace(uuid, text, text, text, boolean, bigint, text) is
  'Gives a workspace another name and, in the same change, another runtime or model where they are given.
ws: the workspace. name: its new name; need not be unique. runtime, restore: as in workspace.change_runtime; null: it keeps its runtime. model:
strict, it must be registered for the runtime; null: as change_runtime decides, or with no runtime the one it has.
expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request; repeated, it gets the
recorded answer and changes nothing.
Errors: as change_runtime.';

create or replace function workspace.delete_workspace(ws uuid, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  current workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
begin
  current := workspace.lock_workspace(delete_workspace.ws, needs_key => false);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_workspace.expected_version);
  end if;

  decided.model_source := 'none';
  described := workspace.describe_change(current, decided, 'delete_workspace');
  described.version := current.version + 1;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  perform workspace.record_change(described);
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
set enable_seqscan = off
set jit = off
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
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING.';

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
set enable_seqscan = off
set jit = off
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

-- Internal. The workspace's row is locked before; a secret that goes is gone.

create or replace function workspace.write_secret_change(
  current workspace.snapshot,
  secret text,
  action text,
  changed boolean,
  stored keyring.sealed_value default null
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
begin
  -- The pair stays, but credentials may have another provider serve it.
  after.credentials := array_remove(current.credentials, write_secret_change.secret);
  if write_secret_change.action = 'set_secret' then
    after.credentials := after.credentials || write_secret_change.secret;
  end if;
  previous := registry.route(current.runtime, current.model, current.credentials);

  -- The model stays, readable or not.
  after.model_is_unreadable := false;
  decided.runtime := after.runtime;
  decided.model := after.model;
  decided.model_source := case when after.sealed is null then 'none' else 'kept' end;
  decided.routing := registry.route(after.runtime, after.model, after.credentials);
  described := workspace.describe_change(after, decided, write_secret_change.action);
  described.changed := write_secret_change.changed;
  described.billing_changed := described.changed and coalesce(previous.billed_to <> described.billed_to, false);
  described.sealed := after.sealed;
  described.key_id := after.key_id;
  described.secret := write_secret_change.secret;

  if described.changed then
    described.version := current.version + 1;
    perform workspace.record_change(described, case when stored.sealed is not null then described.secret end, stored);
  end if;
  return workspace.change_of(described, current.model, current.model);
end
$$;
comment on function workspace.write_secret_change(workspace.snapshot, text, text, boolean, keyring.sealed_value) is
  'Internal: stores a secret besides the model (null: there is nothing to store), records that, and says what it changed.';

-- Internal.

create or replace function fleet.reset_of(runtime text, model text)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  orphan workspace.snapshot;
begin
  orphan.runtime := reset_of.runtime;
  orphan.model := reset_of.model;
  orphan.model_is_unreadable := false;
  orphan.credentials := '{}';  -- They decide by whom a model is served, not which it is.
  return workspace.choose_model(orphan, reset_of.runtime, null, false);
exception
  when sqlstate 'PT422' then
    return null;  -- NO_DEFAULT_MODEL
end
$$;
comment on function fleet.reset_of(text, text) is
  'Internal: what workspace.change_runtime would decide for a workspace with this model on this runtime; null where it would refuse.';

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
  -- For what may refuse: after a refusal that was caught it is run as a query (see sql/keyring/tables.sql). Whoever has no
  -- key and needs one fetches it.
  no_key constant keyring.data_key := null;
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
          no_key, stored.id, change_batch.request_id, 'change_runtime', target, null, change_batch.restore
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
        stored.sealed is not null and model is null, stored.credentials, no_key
      );
      begin
        decided := workspace.choose_model(current, target, null, change_batch.restore);
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

-- Internal.

create or replace function fleet.feed_end()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.next_position). What is below it is seen, or was rolled back.
  return (
    select case
      when n.made_in = n.tableoid and n.made_by = n.xmin
        then (n.era << 45) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      -- Restored from a dump: all that is there came with it, and the next change begins the next era.
      else (n.era + 1) << 45
    end
    from workspace.numbering as n
  );
end
$$;
comment on function fleet.feed_end() is
  'Internal: where the feed ends for now: no change is ever going to appear below this position.';

create or replace function fleet.prune_changes(before timestamptz, batch integer default 1000, cursor text default null)
returns fleet.pruning
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  place constant fleet.place := fleet.parse_cursor(prune_changes.cursor);
  replayable_since constant timestamptz := clock_timestamp() - interval '7 days';
  feed_end bigint;
  last_examined fleet.place;
  last_pruned fleet.place;
  examined bigint;
  oldest timestamptz;
  pruning fleet.pruning;
begin
  if prune_changes.before is null then
    perform registry.invalid_argument('before', 'is null');
  end if;
  perform fleet.check_batch(prune_changes.batch);

  -- One at a time. Readers do not wait.
  lock table fleet.retention in share row exclusive mode;

  -- What the feed has not given out yet stays.
  feed_end := fleet.feed_end();
  select p.position, p.workspace_id, p.version, count(*) over (), min(p.changed_at) over ()
  into last_examined.position, last_examined.workspace_id, last_examined.version, examined, oldest
  from (
    select c.position, c.workspace_id, c.version, c.changed_at
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit prune_changes.batch
  ) as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;
  if not found then
    return (0, prune_changes.cursor, true)::fleet.pruning;
  end if;

  with old as materialized (
    select c.workspace_id, c.version
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and (c.position, c.workspace_id, c.version)
        <= (last_examined.position, last_examined.workspace_id, last_examined.version)
      and c.changed_at < prune_changes.before
      and (c.request_id is null or c.changed_at < replayable_since)
      -- The first keeps the id taken (create_workspace), the last is where the next one goes on (next_position).
      and c.version > 1
      and exists (
        select
        from workspace.changes as later
        where later.workspace_id = c.workspace_id and later.version > c.version
      )
      -- What choose_model can restore: the last model on each runtime.
      and not (
        c.sealed is not null
        and exists (select from workspace.workspaces as w where w.id = c.workspace_id)
        and not exists (
          select
          from workspace.changes as later
          where later.workspace_id = c.workspace_id
            and later.version > c.version
            and later.runtime = c.runtime
            and later.sealed is not null
        )
      )
    -- What keyring.reseal holds is left to the next run: to wait for it could be a deadlock.
    for update of c skip locked
  ),
  pruned as (
    delete from workspace.changes as c
    using old as o
    where c.workspace_id = o.workspace_id and c.version = o.version
    returning c.position, c.workspace_id, c.version
  )
  select count(*) over (), p.position, p.workspace_id, p.version
  into pruning.pruned, last_pruned.position, last_pruned.workspace_id, last_pruned.version
  from pruned as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;

  if found then
    insert into fleet.retention as r (prunings, position, workspace_id, version)
    values (1, last_pruned.position, last_pruned.workspace_id, last_pruned.version)
    on conflict (singleton) do update set
      prunings = r.prunings + 1,
      (position, workspace_id, version) = (
        select furthest.position, furthest.workspace_id, furthest.version
        from (
          values (r.position, r.workspace_id, r.version), (excluded.position, excluded.workspace_id, excluded.version)
        ) as furthest (position, workspace_id, version)
        order by furthest.position desc, furthest.workspace_id desc, furthest.version desc
        limit 1
      );
  end if;
  pruning.pruned := coalesce(pruning.pruned, 0);
  pruning.cursor := concat_ws('.', last_examined.position, last_examined.workspace_id, last_examined.version, 0);
  pruning.finished := examined < prune_changes.batch or oldest >= prune_changes.before;
  return pruning;
end
$$;
comment on function fleet.prune_changes(timestamptz, integer, text) is
  'Takes old changes out of the history and the feed, one batch.
Call it, each time in a transaction of its own, with the cursor that it returned until it says finished.
before: changes made before this may go. batch: how many changes to look at. cursor: where the batch begins; null: at the beginning.
Kept all the same: the first and the last change of each workspace, the last with a model on each runtime (that is what restore takes), the
answers to a request_id for 7 days, and what fleet.changes_after has not been able to give yet.
A reader of the feed that has not got as far as what was pruned is told so. Readers and writers do not wait for it.
Errors: INVALID_ARGUMENT.';

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

-- Who may call what.
revoke all on all functions in schema registry, keyring, access, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.content,
  registry.manifest_problem,
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
