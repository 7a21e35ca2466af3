-- A reset and a move of a fleet look up less.
--
-- The types below are for internal functions alone, and all of those are replaced; the defaults are only there while the
-- columns are filled.
-- squawk-ignore-file ban-drop-column, ban-drop-default

-- Calls first, as in every change of the registry: they hold this, then workspaces, and may read more of the registry later.
lock table registry.state in exclusive mode;

-- Functions that go, or whose arguments change.
drop function
  fleet.change_those_free(uuid[],text,text,boolean,text,boolean),
  workspace.describe_change(workspace.snapshot,workspace.decision,text),
  workspace.next_position(uuid,bigint),
  workspace.optional_text(text,text),
  workspace.record_change(workspace.changes,text,keyring.sealed_value),
  workspace.write_change(workspace.snapshot,workspace.decision,text,boolean,text,text);

alter table registry.models
  add column is_contested boolean not null default false,
  add column has_equivalents boolean not null default false;
update registry.models as m
set
  is_contested = exists (
    select from registry.models as o
    where o.runtime = m.runtime and o.model = m.model and o.arm_position <> m.arm_position
  ),
  has_equivalents = exists (select from registry.equivalents as e where e.model = m.model);
alter table registry.models
  alter column is_contested drop default,
  alter column has_equivalents drop default;
comment on column registry.models.is_contested is
  'Several arms of the runtime list the id: the credentials at hand may decide who serves it.';
comment on column registry.models.has_equivalents is 'Whether equivalents names the id.';

alter table registry.runtimes add column folds_case boolean not null default false;
update registry.runtimes as r
set folds_case = exists (select from registry.claims as c where c.runtime = r.name and c.case_folded);
alter table registry.runtimes alter column folds_case drop default;
comment on column registry.runtimes.folds_case is 'Whether any of its claims is compared in lower case.';

alter table workspace.workspaces add column position bigint not null default 0;
update workspace.workspaces as w
set position = c.position
from workspace.changes as c
where c.workspace_id = w.id and c.version = w.version;
comment on column workspace.workspaces.position is 'The position of its newest row in changes.';

create type keyring.unlocked as (
  with_key keyring.data_key,
  value text
);
comment on type keyring.unlocked is 'Internal: an opened key, and the value of a secret; null where there is none, or it does not open.';

create type registry.finding as (
  routing registry.routing,
  is_contested boolean,
  default_model text,
  default_routing registry.routing,
  default_is_contested boolean,
  previous_billed_to text,
  previous_is_contested boolean,
  has_equivalents boolean
);
comment on type registry.finding is
  'Internal: what the registry knows of a model on a runtime, of the runtime''s default, and of the model on the runtime before (null where no arm lists it there). Where an id is contested, the routing is that without credentials.';

alter type workspace.snapshot drop attribute credentials;
alter type workspace.snapshot add attribute next_position bigint;
comment on type workspace.snapshot is
  'Internal: what a decision about a workspace starts from. with_key: the key that seals. next_position: the place of its next change in the feed; null where only the pair is read.';

alter type workspace.decision drop attribute routing;
alter type workspace.decision
  add attribute provider text,
  add attribute billed_to text,
  add attribute model_deprecated boolean,
  add attribute model_sunset_at timestamptz,
  add attribute changed boolean,
  add attribute billing_changed boolean;
comment on type workspace.decision is
  'Internal: the pair that a workspace shall have, and why; changed: whether it has another one, or none that can be read.';

comment on column workspace.changes.position is
  'Its place in the feed, see workspace.lock_workspace; 0: made before there was a feed.';

-- Internal. All that a decision asks of the registry, in one statement.

create or replace function registry.look_up(runtime text, model text, previous_runtime text default null)
returns registry.finding
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Plans are cached while the registry is small, and have to stay good when it is large.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  finding registry.finding;
begin
  select
    (
      here.model is not null or claimed.provider is not null or (r.model_policy = 'any' and look_up.model is not null),
      coalesce(here.provider, claimed.provider),
      coalesce(here.billed_to, claimed.billed_to),
      here.deprecated_at <= now(),
      here.sunset_at
    )::registry.routing,
    here.is_contested,
    r.default_model,
    (true, standard.provider, standard.billed_to, standard.deprecated_at <= now(), standard.sunset_at)::registry.routing,
    standard.is_contested,
    previous.billed_to,
    previous.is_contested,
    previous.has_equivalents
  into finding
  from registry.runtimes as r
  -- Of the arms that list an id, the first has it on the menu.
  left join registry.models as standard
    on standard.runtime = r.name and standard.model = r.default_model and standard.menu_position is not null
  left join registry.models as previous
    on previous.runtime = look_up.previous_runtime
    and previous.model = look_up.model
    and previous.menu_position is not null
  left join registry.models as here
    on here.runtime = r.name and here.model = look_up.model and here.menu_position is not null
  -- No arm lists it: a prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind
  -- only the greatest pattern that is not above the id can claim it: one step down an index, however many there are.
  left join lateral (
    select candidate.provider, candidate.billed_to
    from (
      select false as case_folded, look_up.model collate "C" as id
      union all
      select true, lower(look_up.model collate "C") where r.folds_case
    ) as asked
    cross join lateral (
      select c.pattern, c.is_prefix, c.provider, c.billed_to
      from registry.claims as c
      where c.runtime = r.name and c.case_folded = asked.case_folded and c.pattern <= asked.id
      order by c.pattern desc
      limit 1
    ) as candidate
    where here.model is null
      and case when candidate.is_prefix
        then starts_with(asked.id, candidate.pattern)
        else asked.id = candidate.pattern
      end
  ) as claimed on true
  where r.name = look_up.runtime;
  return finding;
end
$$;
comment on function registry.look_up(text, text, text) is
  'Internal: what the registry knows of a model on a runtime, and on the runtime before; all null of a runtime that is not registered.';

-- Internal. The rule behind resolve(); the model is taken as it is.

create or replace function registry.route(runtime text, model text, auth_env text[])
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- As in look_up.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  finding constant registry.finding := registry.look_up(route.runtime, route.model);
  routing registry.routing := finding.routing;
begin
  -- Of several arms that list the id, the only one that the credentials open wins, else the first.
  if finding.is_contested and route.auth_env <> '{}' then
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

  content.equivalents := array(
    select row(e.model, e.group_index + 1)::registry.equivalents
    from registry.manifest_equivalents(manifest_content.manifest) as e
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
      p.billed_to,
      m.is_contested,
      e.model is not null
    )::registry.models
    from (
      select
        listed.*,
        row_number() over (partition by listed.runtime, listed.model order by listed.arm_index, listed.model_index) = 1
          as is_first,
        min(listed.arm_index) over same_id <> max(listed.arm_index) over same_id as is_contested,
        row_number() over (
          partition by listed.runtime, listed.model, listed.arm_index order by listed.model_index
        ) as occurrence_on_arm
      from (
        select m.runtime collate "C" as runtime, m.model collate "C" as model, m.arm_index, m.model_index, m.provider
        from registry.manifest_models(manifest_content.manifest) as m
      ) as listed
      window same_id as (partition by listed.runtime, listed.model)
    ) as m
    left join registry.manifest_deprecated(manifest_content.manifest) as there
      on there.model = m.model and there.runtime = m.runtime
    left join registry.manifest_deprecated(manifest_content.manifest) as everywhere
      on everywhere.model = m.model and everywhere.is_everywhere
    left join unnest(content.equivalents) as e on e.model = m.model
    join unnest(content.providers) as p on p.name = m.provider
    where m.occurrence_on_arm = 1
  );

  content.claims := array(
    select row(a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider, p.billed_to)::registry.claims
    from registry.manifest_uncovered(manifest_content.manifest) as u
    join unnest(content.arms) as a on a.provider = u.provider
    join unnest(content.providers) as p on p.name = u.provider
  );

  content.runtimes := array(
    select row(
      named.runtime,
      named.runtime_index + 1,
      named.model_policy,
      coalesce(named.default_model, menu.first),
      coalesce(menu.size, 0),
      named.runtime in (select c.runtime from unnest(content.claims) as c where c.case_folded)
    )::registry.runtimes
    from registry.manifest_runtimes(manifest_content.manifest) as named
    left join (
      select m.runtime, min(m.model) filter (where m.menu_position = 1) as first, count(m.menu_position) as size
      from unnest(content.models) as m
      group by m.runtime
    ) as menu on menu.runtime = named.runtime
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
    menu_size = excluded.menu_size,
    folds_case = excluded.folds_case;
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
  -- A short message, and most are, says in one byte how long it is: that needs no call.
  return case when starts_with(opened, open.label) and (
    octet_length(open.message) < 208 and get_byte(open.message, 15) = octet_length(open.message) - 16
    or keyring.is_whole(open.message)
  ) then
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
create or replace function keyring.seal(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  if with_key.key_id is null then
    return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
  end if;
  -- Whose secret it is stands inside the message, before the value: sealed bytes that are moved to another row or name do
  -- not open. A name has no line break, so no other workspace and name make the same first line.
  return (
    %I.pgp_sym_encrypt(
      seal.ws || ' ' || seal.name || E'\n' || seal.value,
      with_key.secret,
      's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    ),
    with_key.key_id
  )::keyring.sealed_value;
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.unlock(
  active keyring.keys,
  key_is_needed boolean,
  ws uuid,
  name text,
  sealed bytea,
  key_id integer
)
returns keyring.unlocked
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
  key_label constant text := 'runtime-registry key ' || active.id || E'\n';
  label constant text := unlock.ws || ' ' || unlock.name || E'\n';
  with_key keyring.data_key;
  opened_key text;
  opened text;
begin
  -- Nearly always the active key sealed the value, both messages are short, and both open: so they are opened here, for
  -- the six calls below cost a twentieth of a whole change. Whatever is not so is left to keyring.open.
  if active.id = unlock.key_id then
    begin
      if octet_length(active.wrapped) < 208
        and octet_length(unlock.sealed) < 208
        and get_byte(active.wrapped, 15) = octet_length(active.wrapped) - 16
        and get_byte(unlock.sealed, 15) = octet_length(unlock.sealed) - 16
      then
        opened_key := %1$I.pgp_sym_decrypt(active.wrapped, current_setting('runtime_registry.kek', true));
        if starts_with(opened_key, key_label) then
          with_key := (active.id, substr(opened_key, length(key_label) + 1));
          opened := %1$I.pgp_sym_decrypt(unlock.sealed, with_key.secret);
          if starts_with(opened, label) then
            return (with_key, substr(opened, length(label) + 1))::keyring.unlocked;
          end if;
        end if;
      end if;
    exception
      when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
        or invalid_parameter_value or data_corrupted or array_subscript_error then
    end;
  end if;

  with_key := keyring.open_key(active, unlock.key_is_needed);
  if unlock.sealed is not null then
    opened := keyring.unseal(with_key, unlock.ws, unlock.name, unlock.sealed, unlock.key_id);
  else
    opened := null;
  end if;
  return (with_key, opened)::keyring.unlocked;
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
comment on function keyring.seal(keyring.data_key, uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name, sealed with the key; plain without one.';
comment on function keyring.unlock(keyring.keys, boolean, uuid, text, bytea, integer) is
  'Internal: a key of the keyring, opened as by keyring.open_key, and the value of a workspace''s secret of this name, as by keyring.unseal.';
comment on function keyring.random_key() is 'Internal: 32 random bytes in hex.';

-- Internal. keyring.seal and keyring.unseal for the same secret of many workspaces: what a call costs, and what it costs to
-- be ready for an error, is paid once and not for each value. The bodies name pgcrypto's schema, see sql/keyring/pgcrypto.sql.

do $$
declare
  pgcrypto text;
begin
  select n.nspname
  into pgcrypto
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto';

  execute format(
    $body$
create or replace function keyring.seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[])
returns bytea[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
  secret constant text := with_key.secret;
  label constant text := ' ' || seal_all.name || E'\n';
  sealed bytea[] := '{}';
begin
  if with_key.key_id is null then
    return array(
      select convert_to(v.val, 'UTF8') from unnest(seal_all.vals) with ordinality as v (val, place) order by v.place
    );
  end if;
  for place in 1 .. cardinality(ws) loop
    sealed := sealed || %I.pgp_sym_encrypt(
      ws[place] || label || vals[place], secret, 's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    );
  end loop;
  return sealed;
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.unseal_all(
  with_key keyring.data_key,
  ws uuid[],
  name text,
  sealed bytea[],
  key_ids integer[]
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
  own_key_id constant integer := with_key.key_id;
  secret constant text := with_key.secret;
  suffix constant text := ' ' || unseal_all.name || E'\n';
  label text;
  opened text;
  vals text[] := '{}';
  all_opened boolean := true;
  other integer;
begin
  begin
    for place in 1 .. cardinality(ws) loop
      label := ws[place] || suffix;
      opened := case when key_ids[place] = own_key_id then %I.pgp_sym_decrypt(sealed[place], secret) end;
      -- As keyring.open.
      vals := vals || case when starts_with(opened, label) then
        case when octet_length(sealed[place]) < 208 and get_byte(sealed[place], 15) = octet_length(sealed[place]) - 16
          or keyring.is_whole(sealed[place])
        then
          substr(opened, length(label) + 1)
        end
      end;
    end loop;
  exception
    when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
      or invalid_parameter_value or data_corrupted or array_subscript_error then
      vals := array_fill(null::text, array[cardinality(ws)]);
      all_opened := false;
  end;

  -- What another key sealed, or none. And all of them where something did not open: plpgsql would run the expression above
  -- as a query now (see sql/keyring/tables.sql).
  for other in
    select n.place
    from unnest(unseal_all.sealed, unseal_all.key_ids) with ordinality as n (sealed, key_id, place)
    where n.sealed is not null and (not all_opened or (n.key_id = own_key_id) is not true)
  loop
    vals[other] := keyring.unseal(with_key, ws[other], unseal_all.name, sealed[other], key_ids[other]);
  end loop;
  return vals;
end
$function$
    $body$,
    pgcrypto
  );
end
$$;
comment on function keyring.seal_all(keyring.data_key, uuid[], text, text[]) is
  'Internal: what keyring.seal makes of each workspace''s value; null for null.';
comment on function keyring.unseal_all(keyring.data_key, uuid[], text, bytea[], integer[]) is
  'Internal: what keyring.unseal reads from each workspace''s bytes; null where there are none.';

-- Internal.

create or replace function workspace.credentials(ws uuid)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select s.key::text
    from workspace.secrets as s
    where s.workspace_id = credentials.ws and s.key <> 'MODEL'
    order by s.key
  );
end
$$;
comment on function workspace.credentials(uuid) is
  'Internal: the names of a workspace''s secrets besides MODEL. Where several providers list a model, they may decide who serves it.';

-- Internal.

create or replace function workspace.route(ws uuid, runtime text, model text)
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return registry.route(route.runtime, route.model, workspace.credentials(route.ws));
end
$$;
comment on function workspace.route(uuid, text, text) is
  'Internal: registry.route with the credentials of a workspace.';

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
  unlocked keyring.unlocked;
begin
  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    k.id, k.wrapped
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    active.id, active.wrapped
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  unlocked := keyring.unlock(
    active, read_workspace.needs_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id
  );
  snapshot.with_key := unlocked.with_key;
  snapshot.model := unlocked.value;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(uuid, boolean) is
  'Internal: a workspace''s runtime, version and model, and the key that seals.
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
declare
  current workspace.snapshot;
  active keyring.keys;
  unlocked keyring.unlocked;
  last_position bigint;
begin
  -- As workspace.hold, which nearly every call would have to call.
  if current_setting('transaction_isolation') = 'read committed' then
    lock table registry.state, keyring.keys in row share mode;
  else
    perform workspace.hold();
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock and
  -- the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret as it
  -- was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next statement
  -- might see it.
  select w.id, w.runtime, w.version, w.position
  into current.workspace_id, current.runtime, current.version, last_position
  from workspace.workspaces as w
  where w.id = lock_workspace.ws
  for no key update;
  if not found then
    if lock_workspace.runtime is not null then
      perform registry.require_runtime(lock_workspace.runtime);
    end if;
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;

  loop
    -- The place in the feed: not below our own transaction id (as workspace.own_position), for readers are given what lies
    -- below the oldest transaction still running, and this is not visible yet. Not below the change before: its transaction
    -- may be the younger one, if it got the workspace first. (It is over, or our own. Equal positions go by version.)
    select s.sealed, s.key_id, k.id, k.wrapped, greatest((n.era << 45) + pg_current_xact_id()::text::bigint, last_position)
    into current.sealed, current.key_id, active.id, active.wrapped, current.next_position
    from workspace.numbering as n
    left join workspace.secrets as s on s.workspace_id = lock_workspace.ws and s.key = 'MODEL'
    left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;

  unlocked := keyring.unlock(
    active, lock_workspace.needs_key, current.workspace_id, 'MODEL', current.sealed, current.key_id
  );
  current.with_key := unlocked.with_key;
  current.model := unlocked.value;
  current.model_is_unreadable := current.sealed is not null and current.model is null;
  return current;
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
  finding registry.finding;
  last keyring.sealed_value;
  chosen text := choose_model.model;
  source text := 'requested';
  routing registry.routing;
  previous_billed_to text;
  is_changed boolean;
begin
  -- An explicit choice is strict: it is never replaced by another model.
  if chosen is not null then
    routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    if not routing.routable then
      perform registry.require_runtime(choose_model.runtime);
      perform registry.refuse_model(choose_model.runtime);
    end if;
    if current.model is not null then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, current.model)).billed_to;
    end if;

  elsif current.model is null then
    perform registry.require_runtime(choose_model.runtime);
    if current.model_is_unreadable then
      perform workspace.secret_unreadable(current.workspace_id);
    end if;
    source := 'none';

  else
    chosen := current.model;
    source := 'kept';
    finding := registry.look_up(choose_model.runtime, chosen, current.runtime);
    routing := finding.routing;
    if finding.is_contested then
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;
    previous_billed_to := finding.previous_billed_to;
    if finding.previous_is_contested is not false then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, chosen)).billed_to;
    end if;

    -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
    if routing.routable is not true and choose_model.restore then
      select c.sealed, c.key_id
      into last
      from workspace.changes as c
      where c.workspace_id = current.workspace_id
        and c.runtime = choose_model.runtime
        and c.sealed is not null
      order by c.version desc
      limit 1;
      chosen := keyring.unseal(current.with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
      source := 'restored';
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;

    if routing.routable is not true and finding.has_equivalents is not false then
      select alike.model
      into chosen
      from registry.equivalents as e
      join registry.equivalents as alike on alike.group_number = e.group_number
      -- Limited so that it stays what it is, a lookup for each, and is not turned into a walk along the menu.
      cross join lateral (
        select m.menu_position
        from registry.models as m
        where m.runtime = choose_model.runtime and m.model = alike.model and m.menu_position is not null
        limit 1
      ) as listed
      where e.model = current.model
      order by listed.menu_position
      limit 1;
      if found then
        source := 'equivalent';
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;

    if routing.routable is not true then
      chosen := finding.default_model;
      source := 'default';
      routing := finding.default_routing;
      if chosen is null then
        perform registry.require_runtime(choose_model.runtime);
        raise exception using
          errcode = 'PT422',
          message = format(
            'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
          ),
          detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
            || registry.valid_models(choose_model.runtime),
          hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
      elsif finding.default_is_contested then
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;
  end if;

  is_changed := choose_model.runtime is distinct from current.runtime
    or chosen is distinct from current.model
    or current.model_is_unreadable;
  return (
    choose_model.runtime,
    chosen,
    source,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    is_changed,
    is_changed and coalesce(previous_billed_to <> routing.billed_to, false)
  )::workspace.decision;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why.
Raises RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

-- Internal.

create or replace function workspace.keep_pair(current workspace.snapshot, credentials text[])
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  routing constant registry.routing := registry.route(
    current.runtime, current.model, keep_pair.credentials
  );
begin
  return (
    current.runtime,
    current.model,
    case when current.sealed is null then 'none' else 'kept' end,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    false,
    false
  )::workspace.decision;
end
$$;
comment on function workspace.keep_pair(workspace.snapshot, text[]) is
  'Internal: the decision that a workspace keeps its pair, even one that a newer registry does not have, or that cannot be read.
credentials: the names of its secrets besides MODEL.';

-- Internal.

create or replace function workspace.describe_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text
)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    current.workspace_id,
    current.version,
    decided.changed,
    current.runtime,  -- previous_runtime
    decided.runtime,
    current.model,  -- previous_model
    decided.model,
    decided.model_source,
    decided.model_source in ('restored', 'equivalent', 'default'),  -- model_was_reset
    decided.provider,
    decided.billed_to,
    decided.billing_changed,
    decided.changed and describe_change.action not in ('create_workspace', 'delete_workspace'),  -- needs_restart
    decided.model_deprecated,
    decided.model_sunset_at
  )::workspace.change;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as its caller is told it, but at the version that it was decided on.';

-- Internal. Only what finds a change its position calls this, before anything is written in this cluster: so no position of the era
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
  elsif not exists (select from workspace.numbering as n) then
    -- Not made anew: nobody knows which eras there were.
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = 'The table workspace.numbering has lost its row.',
      hint = 'Restore it together with the other tables of workspace.';
  end if;
end
$$;
comment on function workspace.begin_era() is
  'Internal: makes the positions of changes go on above all that came with a dump, whatever transaction ids are here.';

-- Internal. Where the changes of this transaction stand in the feed (fleet.changes_after) at the earliest.

create or replace function workspace.own_position()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own_position bigint;
begin
  loop
    select (n.era << 45) + pg_current_xact_id()::text::bigint
    into own_position
    from workspace.numbering as n
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;
  return own_position;
end
$$;
comment on function workspace.own_position() is
  'Internal: the lowest position that a change of this transaction can have: that of a workspace''s first change.';

-- Internal. Every call that changes one workspace ends here (fleet.change_batch writes the same rows for many). Its row is
-- locked before, or new, or deleted. All of it or, if any statement fails, nothing.

create or replace function workspace.write_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean default false,
  request_id text default null,
  name text default null,
  secret text default null,
  secret_value keyring.sealed_value default null
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer workspace.change := workspace.describe_change(
    write_change.current, write_change.decided, write_change.action
  );
  model keyring.sealed_value;
  stored keyring.sealed_value := write_change.secret_value;
  stored_as text := case when secret_value.sealed is not null then write_change.secret end;
  actor text;
  changed_at timestamptz;
  txid xid8;
begin
  if write_change.name is not null and not answer.changed then
    answer.changed := (
      select w.name <> write_change.name from workspace.workspaces as w where w.id = answer.workspace_id
    );
  end if;

  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not answer.changed and write_change.request_id is null then
    return answer;
  end if;

  -- A model that stays keeps its bytes. Another one is sealed first: a plain value must never reach a table or the WAL.
  if decided.model_source = 'none' then
    if current.sealed is not null then
      delete from workspace.secrets as s where s.workspace_id = answer.workspace_id and s.key = 'MODEL';
    end if;
  elsif decided.model_source = 'kept' or decided.model = current.model then
    model := (current.sealed, current.key_id);
  else
    model := keyring.seal(current.with_key, current.workspace_id, 'MODEL', decided.model);
    stored := model;
    stored_as := 'MODEL';
  end if;

  answer.version := current.version + 1;
  actor := workspace.actor();
  changed_at := clock_timestamp();
  txid := pg_current_xact_id();
  -- One statement: three would cost much more. (With the update at its end it can be distributed, too.)
  with written as (
    insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
    select answer.workspace_id, stored_as, stored.sealed, stored.key_id, changed_at
    where stored_as is not null
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed,
      key_id = excluded.key_id,
      updated_at = excluded.updated_at
  ),
  recorded as (
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed,
      previous_key_id,
      sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid, secret,
      model_deprecated, model_sunset_at, position, name
    )
    values (
      answer.workspace_id, answer.version, write_change.action, answer.changed, answer.previous_runtime, answer.runtime,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.sealed end,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.key_id end,
      model.sealed, model.key_id,
      answer.model_source, answer.provider, answer.billed_to, answer.billing_changed,
      write_change.restore, actor, write_change.request_id, changed_at, txid, write_change.secret,
      answer.model_deprecated, answer.model_sunset_at, current.next_position, write_change.name
    )
  )
  -- Not a workspace that this very change has made, or deleted.
  update workspace.workspaces as w
  set
    name = coalesce(write_change.name, w.name),
    runtime = answer.runtime,
    version = answer.version,
    updated_at = changed_at,
    position = current.next_position
  where w.id = answer.workspace_id and w.version < answer.version;

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
  return answer;
end
$$;
comment on function workspace.write_change(
  workspace.snapshot, workspace.decision, text, boolean, text, text, text, keyring.sealed_value
) is
  'Internal: stores what was decided about a workspace, records it and says what was done.
name: its new one; null: it keeps its name. secret: the secret besides MODEL that the change is about; secret_value: what to store as that; null:
nothing. With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';

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
  wanted constant text collate "C" :=
    case when create_workspace.model is not null then registry.clean_text(create_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when create_workspace.request_id is not null then registry.clean_text(create_workspace.request_id, 'request_id') end;
  -- A request_id has no line break, so no other actor and request_id make the same text.
  digest bytea := sha256(convert_to(workspace.actor() || E'\n' || request, 'UTF8'));
  moment timestamptz;
  answer workspace.change;
  absent workspace.snapshot;
  decided workspace.decision;
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

  perform workspace.hold();
  absent.with_key := keyring.active_key();
  absent.next_position := workspace.own_position();
  moment := clock_timestamp();
  answer := workspace.recorded_answer(
    absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;
  decided := workspace.choose_model(absent, target, wanted, false);

  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at, position)
    values (absent.workspace_id, called, target, 1, moment, moment, absent.next_position);
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    return workspace.write_change(absent, decided, 'create_workspace', request_id => request, name => called);
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
  wanted constant text collate "C" :=
    case when change_runtime.model is not null then registry.clean_text(change_runtime.model, 'model') end;
  request constant text collate "C" :=
    case when change_runtime.request_id is not null then registry.clean_text(change_runtime.request_id, 'request_id') end;
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
  request constant text collate "C" :=
    case when set_model.request_id is not null then registry.clean_text(set_model.request_id, 'request_id') end;
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
  request constant text collate "C" :=
    case when clear_model.request_id is not null then registry.clean_text(clear_model.request_id, 'request_id') end;
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
  -- No model, so nobody serves it and nobody pays; changed, if there was one.
  decided := (current.runtime, null, 'none', null, null, false, null, current.sealed is not null, false);
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
  target constant text collate "C" :=
    case when rename_workspace.runtime is not null then registry.clean_text(rename_workspace.runtime, 'runtime') end;
  wanted constant text collate "C" :=
    case when rename_workspace.model is not null then registry.clean_text(rename_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when rename_workspace.request_id is not null then registry.clean_text(rename_workspace.request_id, 'request_id') end;
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
    decided := workspace.keep_pair(current, workspace.credentials(current.workspace_id));
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
begin
  current := workspace.lock_workspace(delete_workspace.ws, needs_key => false);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_workspace.expected_version);
  end if;

  -- No runtime and no model, so nobody serves it and nobody pays; changed.
  decided := (null, null, 'none', null, null, false, null, true, false);
  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  return workspace.write_change(current, decided, 'delete_workspace');
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
    routing := workspace.route(current.workspace_id, current.runtime, current.model);
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
  wanted constant text collate "C" :=
    case when preview_runtime_change.model is not null then registry.clean_text(preview_runtime_change.model, 'model') end;
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.require_runtime(target);
  current := workspace.read_workspace(preview_runtime_change.ws);
  decided := workspace.choose_model(current, target, wanted, preview_runtime_change.restore);
  return workspace.describe_change(current, decided, 'change_runtime');
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
  decided workspace.decision;
  billed_before text;
  -- What set_secret has not stored yet is not among them, and what delete_secret has deleted is not any more.
  credentials constant text[] := workspace.credentials(current.workspace_id);
  with_it constant text[] := array_remove(credentials, write_secret_change.secret) || write_secret_change.secret;
  is_set constant boolean := write_secret_change.action = 'set_secret';
begin
  -- The pair stays, readable or not, but credentials may have another provider serve it.
  decided := workspace.keep_pair(current, case when is_set then with_it else credentials end);
  decided.changed := write_secret_change.changed;
  billed_before := (
    registry.route(current.runtime, current.model, case when is_set then credentials else with_it end)
  ).billed_to;
  decided.billing_changed := decided.changed and coalesce(billed_before <> decided.billed_to, false);

  return workspace.write_change(
    current, decided, write_secret_change.action, secret => write_secret_change.secret, secret_value => stored
  );
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
  return workspace.choose_model(orphan, reset_of.runtime, null, false);
exception
  when sqlstate 'PT422' then
    return null;  -- NO_DEFAULT_MODEL
end
$$;
comment on function fleet.reset_of(text, text) is
  'Internal: what workspace.change_runtime would decide for a workspace with this model on this runtime; null where it would refuse.';

-- Internal. workspace.change_runtime for many workspaces at once: the same decision, by the same functions, and the same
-- rows, all written by one statement. The registry and the keyring are held before, unless nothing is to be written. It
-- never waits for a workspace: who holds several, as it does, would otherwise keep single callers waiting behind each other.

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
-- Plans made while the tables are small have to stay good.
set enable_seqscan = off
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  -- For what may refuse: after a refusal that was caught it is run as a query (see sql/keyring/tables.sql). Whoever has no
  -- key and needs one fetches it.
  no_key constant keyring.data_key := null;
  sealing_key_id constant integer := with_key.key_id;
  own_actor constant text := workspace.actor();

  -- The workspaces, one an element. A loop over rows would cost more than what is done with them.
  found_ids uuid[];
  runtimes text[];
  versions bigint[];
  positions bigint[];
  sealed bytea[];
  key_ids integer[];
  credentials text[];
  is_recorded boolean[];
  models text[];
  new_models text[];
  resealed bytea[];
  chosen integer[];

  -- A fleet has many workspaces and few distinct pairs: each pair is decided once, for the first that has it.
  firsts integer[];
  first integer;
  current workspace.snapshot;
  decided workspace.decision;
  answer workspace.change;
  entry fleet.move_entry;
  entries fleet.move_entry[] := '{}';
  verdict workspace.change;
  verdicts workspace.change[] := '{}';
  is_written boolean[] := '{}';
  has_new_model boolean[] := '{}';
  detail text;

  moment timestamptz;
  own_txid xid8;
  own_position bigint;
begin
  if not change_batch.dry_run then
    found_ids := array(
      select w.id
      from workspace.workspaces as w
      where w.id = any (change_batch.ids)
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      order by w.id
      for no key update skip locked
    );
  end if;

  -- One statement, so that no pair is torn where nothing is locked, and one walk along an index each, no join: it stays as
  -- good with any number of workspaces. What is locked, and what that guards, is read as it was then.
  select
    array_agg(w.id), array_agg(w.runtime), array_agg(w.version), array_agg(w.position),
    array_agg(w.sealed), array_agg(w.key_id), array_agg(w.credentials), array_agg(w.is_recorded)
  into found_ids, runtimes, versions, positions, sealed, key_ids, credentials, is_recorded
  from (
    select
      s.id,
      max(s.runtime) as runtime,
      max(s.version) as version,
      max(s.position) as position,
      string_agg(s.sealed, '') as sealed,
      max(s.key_id) as key_id,
      coalesce(array_agg(s.credential) filter (where s.credential is not null), '{}')::text as credentials,
      change_batch.request_id is not null and exists (
        select from workspace.changes as c where c.workspace_id = s.id and c.request_id = change_batch.request_id
      ) as is_recorded
    from (
      select
        w.id, w.runtime, w.version, w.position,
        null::bytea as sealed, null::integer as key_id, null::text as credential
      from workspace.workspaces as w
      where w.id = any (coalesce(found_ids, change_batch.ids))
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      union all
      select
        m.workspace_id, null, null, null,
        case when m.key = 'MODEL' then m.sealed end,
        case when m.key = 'MODEL' then m.key_id end,
        case when m.key <> 'MODEL' then m.key end
      from workspace.secrets as m
      where m.workspace_id = any (coalesce(found_ids, change_batch.ids))
    ) as s
    group by s.id
    having max(s.version) is not null  -- else it is on another runtime, and only its secrets were found
    order by s.id
  ) as w;
  found_ids := coalesce(found_ids, '{}');
  models := keyring.unseal_all(with_key, found_ids, 'MODEL', sealed, key_ids);

  -- No two pairs have the same name: what a model may contain stands at its end. What a workspace had before, and what
  -- was recorded for it, is its own.
  with pairs as materialized (
    select row_number() over () as pair, n.places
    from (
      select array_agg(n.place) as places
      from unnest(runtimes, credentials, models, sealed, is_recorded)
        with ordinality as n (runtime, credentials, model, sealed, is_recorded, place)
      group by case
        when change_batch.restore or n.is_recorded then n.place::text
        else n.runtime || E'\n' || n.credentials || E'\n' || case
          when n.model is not null then 'model ' || n.model
          when n.sealed is not null then 'unreadable'
          else 'none'
        end
      end
    ) as n
  )
  select
    (select array_agg(p.pair order by n.place) from pairs as p cross join unnest(p.places) as n (place)),
    (select array_agg(p.places[1] order by p.pair) from pairs as p)
  into chosen, firsts;

  foreach first in array coalesce(firsts, '{}') loop
    verdict := null;
    if is_recorded[first] then
      -- This very request was made before: it is not made again, whatever happened since.
      begin
        answer := workspace.recorded_answer(
          no_key, found_ids[first], change_batch.request_id, 'change_runtime',
          coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        entry := (
          null, 'recorded', null, answer.version, answer.previous_runtime, answer.runtime,
          answer.previous_model, answer.model, answer.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    else
      current := (
        found_ids[first], runtimes[first], versions[first], sealed[first], key_ids[first], models[first],
        sealed[first] is not null and models[first] is null, no_key, null
      );
      begin
        decided := workspace.choose_model(
          current, coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        verdict := workspace.describe_change(current, decided, 'change_runtime');
        entry := (
          null, case when verdict.changed then 'changed' else 'unchanged' end, null,
          null, runtimes[first], decided.runtime, models[first], decided.model, decided.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          verdict := null;
          -- It is left as it is.
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    end if;
    entries := entries || entry;
    verdicts := verdicts || verdict;
    -- As a single call, a move is recorded even where there is nothing to do: its replay would otherwise do it later. A
    -- reset is nobody's request to a workspace that is no orphan.
    is_written := is_written || (
      entry.outcome = 'changed'
      or (entry.outcome = 'unchanged' and change_batch.request_id is not null and change_batch.runtime is not null)
    );
    has_new_model := has_new_model || (
      entry.outcome = 'changed' and entry.model is distinct from models[first]
    );
  end loop;

  if true = any (is_written) and not change_batch.dry_run then
    -- A model that stays keeps its bytes.
    if true = any (has_new_model) then
      new_models := array(
        select case when has_new_model[n.pair] then (entries[n.pair]).model end
        from unnest(chosen) with ordinality as n (pair, place)
        order by n.place
      );
      resealed := keyring.seal_all(with_key, found_ids, 'MODEL', new_models);
    end if;

    moment := clock_timestamp();
    own_txid := pg_current_xact_id();
    own_position := workspace.own_position();
    with n as materialized (
      select
        n.id, n.version + 1 as version, n.pair, n.sealed, n.key_id, n.resealed,
        greatest(own_position, n.position) as position,  -- as workspace.lock_workspace
        has_new_model[n.pair] as has_new_model
      from unnest(found_ids, versions, positions, chosen, sealed, key_ids, resealed)
        as n (id, version, position, pair, sealed, key_id, resealed)
      where is_written[n.pair]
    ),
    stored as (
      -- Who gets another model has one.
      update workspace.secrets as s
      set sealed = n.resealed, key_id = sealing_key_id, updated_at = moment
      from n
      where s.workspace_id = n.id and s.key = 'MODEL' and n.has_new_model
    ),
    recorded as (
      insert into workspace.changes (
        workspace_id, version, action, changed, previous_runtime, runtime,
        previous_sealed, previous_key_id, sealed, key_id,
        model_source, provider, billed_to, billing_changed,
        restore, actor, request_id, changed_at, txid, secret,
        model_deprecated, model_sunset_at, position
      )
      select
        n.id, n.version, 'change_runtime', v.changed, v.previous_runtime, v.runtime,
        n.sealed, n.key_id,
        case when n.has_new_model then n.resealed else n.sealed end,
        case when n.has_new_model then sealing_key_id else n.key_id end,
        v.model_source, v.provider, v.billed_to, v.billing_changed,
        change_batch.restore, own_actor, change_batch.request_id, moment, own_txid, null,
        v.model_deprecated, v.model_sunset_at, n.position
      from n
      join unnest(verdicts) with ordinality as v on v.ordinality = n.pair
    )
    update workspace.workspaces as w
    set
      runtime = coalesce(change_batch.runtime, w.runtime),
      version = w.version + 1,
      updated_at = moment,
      position = greatest(own_position, w.position)
    where w.id = any (array(select n.id from n));

    -- As workspace.write_change.
    if current_setting('runtime_registry.notify', true) = 'on' then
      perform pg_notify('runtime_registry_changes', '');
    end if;
  end if;

  return query
    select
      n.id, e.outcome, e.code, coalesce(e.version, n.version + is_written[n.pair]::integer), e.previous_runtime,
      e.runtime, e.previous_model, e.model, e.model_source
    from unnest(found_ids, versions, chosen) as n (id, version, pair)
    join unnest(entries) with ordinality as e on e.ordinality = n.pair
    union all
    select
      other.id, case when w.id is null then 'gone' else 'skipped' end, null, w.version, w.runtime::text, w.runtime::text,
      null, null, null
    from unnest(change_batch.ids) as other (id)
    left join workspace.workspaces as w
      on w.id = other.id
      and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
    where cardinality(found_ids) < cardinality(change_batch.ids) and other.id <> all (found_ids)
    order by 1;
end
$$;
comment on function fleet.change_batch(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes the runtime of many workspaces as workspace.change_runtime would, one by one.
from_runtime: of those that are on it; null: of all. runtime: null: resets those that are orphaned where they are. Returns a row for each, in
the order of their ids; one that is refused, or that somebody holds, stops none of the others.';

-- Internal.

create or replace function fleet.feed_end()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.lock_workspace). What is below it is seen, or was rolled back.
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
      -- The first keeps the id taken (create_workspace), the last tells how the workspace came to be as it is.
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
  asked constant text collate "C" :=
    case when orphans.runtime is not null then registry.clean_text(orphans.runtime, 'runtime') end;
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
  request constant text collate "C" :=
    case when move.request_id is not null then registry.clean_text(move.request_id, 'request_id') end;
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
    select m.* from fleet.change_batch(ids, source, target, move.restore, request, move.dry_run) as m;
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
  source constant text collate "C" :=
    case when reset_orphans.runtime is not null then registry.clean_text(reset_orphans.runtime, 'runtime') end;
  request constant text collate "C" :=
    case when reset_orphans.request_id is not null then registry.clean_text(reset_orphans.request_id, 'request_id') end;
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
    select m.* from fleet.change_batch(ids, source, null, false, request, reset_orphans.dry_run) as m;
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
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.finding, registry.content,
  registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key, keyring.unlocked,
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
