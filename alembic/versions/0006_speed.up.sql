-- A call does its work in fewer, larger statements.
--
-- The type below is for internal functions alone, and all of those are replaced; the defaults are only there while the
-- columns are filled.
-- squawk-ignore-file ban-drop-column, ban-drop-default

alter type workspace.decision
  drop attribute provider,
  drop attribute billed_to,
  drop attribute model_deprecated,
  drop attribute model_sunset_at;

-- Functions that go, or whose arguments or results change.
drop function
  keyring.decrypt(bytea,text),
  keyring.open_key(keyring.keys),
  keyring.usable_key(),
  registry.replace_registry(jsonb),
  workspace.choose_model(keyring.data_key,workspace.snapshot,text,text,boolean),
  workspace.lock_workspace(keyring.data_key,uuid),
  workspace.read_workspace(keyring.data_key,uuid),
  workspace.record_change(workspace.changes,workspace.snapshot,keyring.sealed_value,boolean,text),
  workspace.store_secret(keyring.data_key,uuid,text,text),
  workspace.version_conflict(workspace.snapshot,bigint),
  workspace.write_change(keyring.data_key,workspace.snapshot,workspace.decision,text,boolean,text,text),
  workspace.write_secret_change(workspace.snapshot,text,text,boolean);

alter table registry.models add column billed_to text not null default 'tenant';
update registry.models as m set billed_to = p.billed_to from registry.providers as p where p.name = m.provider;
alter table registry.models alter column billed_to drop default;

alter table registry.claims add column billed_to text not null default 'tenant';
update registry.claims as c set billed_to = p.billed_to from registry.providers as p where p.name = c.provider;
alter table registry.claims alter column billed_to drop default;

create type registry.content as (
  providers registry.providers[],
  runtimes registry.runtimes[],
  arms registry.arms[],
  models registry.models[],
  claims registry.claims[],
  equivalents registry.equivalents[]
);
comment on type registry.content is 'Internal: the rows of all tables that are derived from a manifest.';

alter type workspace.snapshot add attribute with_key keyring.data_key;
comment on type workspace.snapshot is
  'Internal: what a decision about a workspace starts from. credentials: the names of its secrets besides MODEL. with_key: the key that seals.';

alter type workspace.decision add attribute routing registry.routing;
comment on type workspace.decision is 'Internal: the pair that a workspace shall have, and why.';

-- Internal. Every id and name enters through here.

create or replace function registry.clean_text(value text, argument text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Not the caller's collation: it would go on into every comparison.
  cleaned text collate "C" := clean_text.value;
  problem text;
  -- Nearly all ids and names are made of these alone, and have nothing to trim or to refuse. The frequent ones first.
  harmless constant text collate "C" := 'eaoirntslcudpmhgbfywkvxzjq0123456789-_./:ABCDEFGHIJKLMNOPQRSTUVWXYZ';
begin
  if octet_length(cleaned) between 1 and 255 and translate(cleaned, harmless, '') = '' then
    return cleaned;
  end if;

  -- What is far too long is refused untrimmed: trimming needs 13 times its memory.
  if octet_length(cleaned) <= 4096 then
    cleaned := registry.trim_text(cleaned);
  end if;
  problem := registry.text_problem(cleaned);
  if problem is not null then
    perform registry.invalid_argument(clean_text.argument, problem);
  end if;
  return cleaned;
end
$$;
comment on function registry.clean_text(text, text) is
  'Internal: the value without white space around it; INVALID_ARGUMENT, naming the argument, if it is no legal id or name.';

-- Internal. Whoever decides by the registry calls this first, before any workspace is locked.

create or replace function registry.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Held to the end of the transaction. It conflicts with the exclusive lock that a load takes before it writes, and
  -- with nothing else: a pair is never decided on a registry that is being replaced, and a load judges the pairs
  -- that are there only when none is being written. Row locks would have every call write to the same few rows, and
  -- locking the workspace first would deadlock with a load.
  lock table registry.state in row share mode;

  -- Later statements of a READ COMMITTED transaction see what the load that made us wait has committed. Above it they
  -- would decide by the snapshot's registry, so a snapshot older than the current one must fail with 40001.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from registry.state as s for share;
  end if;
end
$$;
comment on function registry.hold() is
  'Internal: keeps the registry as it is until the transaction ends. Raises 40001 if the transaction''s snapshot is older than the registry.';

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

-- Internal. A manifest as rows. These read whatever they are given: what has the wrong type is passed over here and
-- reported by registry.manifest_problems. Indexes count from 0, as in the paths of those reports.

create or replace function registry.manifest_array(value jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(manifest_array.value) = 'array' then manifest_array.value else '[]' end
$$;
comment on function registry.manifest_array(jsonb) is 'Internal: the value if it is an array, else an empty one.';

create or replace function registry.manifest_strings(value jsonb)
returns text[]
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select e.item #>> '{}'
    from jsonb_array_elements(registry.manifest_array(manifest_strings.value)) with ordinality as e (item, place)
    where jsonb_typeof(e.item) = 'string'
    order by e.place
  )
$$;
comment on function registry.manifest_strings(jsonb) is 'Internal: the strings of an array, in order.';

create or replace function registry.manifest_providers(manifest jsonb)
returns table (
  provider_index bigint,
  provider text,
  billed_to text,
  auth_env text[],
  model_prefixes text[],
  model_aliases text[],
  case_sensitive boolean
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'name',
    coalesce(e.item ->> 'billed_to', 'tenant'),
    registry.manifest_strings(e.item -> 'auth_env'),
    registry.manifest_strings(e.item -> 'model_prefixes'),
    registry.manifest_strings(e.item -> 'model_aliases'),
    e.item -> 'case_sensitive' is distinct from 'false'
  from jsonb_array_elements(registry.manifest_array(manifest_providers.manifest -> 'providers'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_providers(jsonb) is 'Internal: the providers of a manifest.';

create or replace function registry.manifest_claims(manifest jsonb)
returns table (
  provider text,
  path text,
  pattern text,
  is_prefix boolean,
  case_sensitive boolean
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    p.item ->> 'name',
    format('providers[%s].%s[%s]', p.place - 1, list.key, claim.place - 1),
    case when folds.case_sensitive then claim.item #>> '{}' else lower((claim.item #>> '{}') collate "C") end,
    list.key = 'model_prefixes',
    folds.case_sensitive
  from jsonb_array_elements(registry.manifest_array(manifest_claims.manifest -> 'providers'))
    with ordinality as p (item, place)
  cross join lateral (values (p.item -> 'case_sensitive' is distinct from 'false')) as folds (case_sensitive)
  cross join (values ('model_prefixes'), ('model_aliases')) as list (key)
  cross join lateral jsonb_array_elements(registry.manifest_array(p.item -> list.key))
    with ordinality as claim (item, place)
  where jsonb_typeof(p.item) = 'object' and jsonb_typeof(claim.item) = 'string'
$$;
comment on function registry.manifest_claims(jsonb) is
  'Internal: the prefixes and aliases of a manifest''s providers, in lower case where case does not count, and where they stand.';

create or replace function registry.manifest_runtimes(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  default_model text,
  model_policy text,
  arms jsonb
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'name',
    e.item ->> 'default_model',
    coalesce(e.item ->> 'model_policy', 'registered'),
    registry.manifest_array(e.item -> 'arms')
  from jsonb_array_elements(registry.manifest_array(manifest_runtimes.manifest -> 'runtimes'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_runtimes(jsonb) is 'Internal: the runtimes of a manifest.';

create or replace function registry.manifest_arms(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  arm_index bigint,
  provider text,
  models jsonb
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    r.runtime_index,
    r.runtime,
    e.place - 1,
    e.item ->> 'provider',
    registry.manifest_array(e.item -> 'models')
  from registry.manifest_runtimes(manifest_arms.manifest) as r
  cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_arms(jsonb) is 'Internal: the arms of a manifest''s runtimes.';

create or replace function registry.manifest_models(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  arm_index bigint,
  provider text,
  model_index bigint,
  model text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    a.runtime_index,
    a.runtime,
    a.arm_index,
    a.provider,
    e.place - 1,
    e.item #>> '{}'
  from registry.manifest_arms(manifest_models.manifest) as a
  cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;
comment on function registry.manifest_models(jsonb) is 'Internal: the model ids that a manifest''s arms list.';

create or replace function registry.manifest_equivalents(manifest jsonb)
returns table (
  group_index bigint,
  model_index bigint,
  model text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    g.place - 1,
    e.place - 1,
    e.item #>> '{}'
  from jsonb_array_elements(registry.manifest_array(manifest_equivalents.manifest -> 'equivalents'))
    with ordinality as g (item, place)
  cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;
comment on function registry.manifest_equivalents(jsonb) is 'Internal: the ids of a manifest''s equivalents, by list.';

create or replace function registry.manifest_time(value text)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Read alike in every session: it depends on neither DateStyle nor TimeZone.
  if manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
    return (manifest_time.value || 'T00:00:00Z')::timestamptz;
  elsif manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$' then
    return manifest_time.value::timestamptz;
  end if;
  return null;
exception
  when datetime_field_overflow then
    return null;
end
$$;
comment on function registry.manifest_time(text) is 'Internal: a date, which begins at midnight UTC, or a time in UTC; null if the value is neither.';

create or replace function registry.manifest_deprecations(manifest jsonb)
returns table (
  deprecation_index bigint,
  model text,
  runtimes jsonb,
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'model',
    e.item -> 'runtimes',
    registry.manifest_time(e.item ->> 'deprecated_at'),
    registry.manifest_time(e.item ->> 'sunset_at'),
    e.item ->> 'successor'
  from jsonb_array_elements(registry.manifest_array(manifest_deprecations.manifest -> 'deprecations'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_deprecations(jsonb) is
  'Internal: the deprecations of a manifest; runtimes is null where all that list the model are meant.';

-- Two joins by equality instead of one with an or: whatever is deprecated, the work grows with the manifest.
create or replace function registry.manifest_deprecated(manifest jsonb)
returns table (
  model text,
  runtime text,
  is_everywhere boolean,
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select d.model, named.runtime, d.runtimes is null, d.deprecated_at, d.sunset_at, d.successor
  from registry.manifest_deprecations(manifest_deprecated.manifest) as d
  left join lateral jsonb_array_elements_text(d.runtimes) as named (runtime) on true
$$;
comment on function registry.manifest_deprecated(jsonb) is
  'Internal: what a valid manifest deprecates, one row for each runtime that it names, or one for all. A model is deprecated once for each runtime.';

-- In order of collation "C" all that begins with a prefix comes right behind it.
create or replace function registry.manifest_uncovered(manifest jsonb)
returns table (
  provider text,
  pattern text,
  is_prefix boolean,
  case_sensitive boolean
)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
-- A plan of its own would hold the manifest several times.
set plan_cache_mode = force_generic_plan
as $$
declare
  claim record;
  covered_by text;
  owner text;
begin
  for claim in
    select distinct
      c.provider collate "C" as provider,
      c.pattern collate "C" as pattern,
      c.is_prefix,
      c.case_sensitive
    from registry.manifest_claims(manifest_uncovered.manifest) as c
    order by 1, 2, 3 desc
  loop
    continue when claim.provider = owner and starts_with(claim.pattern, covered_by);
    if claim.is_prefix then
      owner := claim.provider;
      covered_by := claim.pattern;
    end if;
    provider := claim.provider;
    pattern := claim.pattern;
    is_prefix := claim.is_prefix;
    case_sensitive := claim.case_sensitive;
    return next;
  end loop;
end
$$;
comment on function registry.manifest_uncovered(jsonb) is
  'Internal: the prefixes and aliases of a valid manifest, each once, without those that a prefix of the same provider covers: one step down the index has to be enough (registry.route).';

-- Internal. Everything that is wrong with a manifest, in one answer. manifest.schema.json says the same of its shape.

create or replace function registry.shape_problems(path text, value jsonb, required jsonb, optional jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(shape_problems.value) is distinct from 'object' then
    return next (shape_problems.path, 'must be an object')::registry.manifest_problem;
    return;
  end if;

  return query
    select
      concat_ws('.', nullif(shape_problems.path, ''), coalesce(known.key, left(given.key, 255))),
      case
        when known.key is null then 'is not a known key'
        when given.key is null then 'is missing'
        when known.type in ('array', 'object') then format('must be an %s', known.type)
        else format('must be a %s', known.type)
      end
    from jsonb_each_text(shape_problems.required || shape_problems.optional) as known (key, type)
    full join jsonb_each(shape_problems.value) as given (key, item) on given.key = known.key
    where known.key is null
      or (given.key is null and shape_problems.required ? known.key)
      or jsonb_typeof(given.item) <> known.type
    order by coalesce(known.key, given.key);
end
$$;
comment on function registry.shape_problems(text, jsonb, jsonb, jsonb) is
  'Internal: unknown and missing keys of an object, and values of another type than the one named for their key.';

create or replace function registry.id_problem(value jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  id constant text := id_problem.value #>> '{}';
begin
  if jsonb_typeof(id_problem.value) <> 'string' then
    return 'must be a string';
  elsif octet_length(id) <= 255 and registry.trim_text(id) not in (id, '') then
    return 'has white space around it';
  end if;
  return registry.text_problem(case when octet_length(id) <= 255 then registry.trim_text(id) else id end);
end
$$;
comment on function registry.id_problem(jsonb) is 'Internal: what is wrong with an id or name of a manifest; null if nothing.';

-- A prefix overlaps whatever begins with it, an alias only its equal. In order of collation "C" all that begins with a
-- pattern comes right behind it: one pass finds what each begins with, on a stack.
create or replace function registry.manifest_overlaps(manifest jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  most_comparisons constant bigint := 1000000;
  comparisons bigint := 0;
  claim record;
  runtime_index bigint;
  by_case boolean;
  patterns text[] collate "C";
  prefixes boolean[];
  owners text[] collate "C";
  paths text[];
  depth integer;
  other_owner integer;  -- The lowest of the stack that is not the owner's of its bottom; null: there is none.
begin
  for claim in
    with claim as materialized (
      select c.provider, c.path, c.pattern, lower(c.pattern collate "C") as folded, c.is_prefix, c.case_sensitive
      from registry.manifest_claims(manifest_overlaps.manifest) as c
      -- What is blank or too long is another problem.
      where octet_length(c.pattern) between 1 and 255
    ),
    arm as (
      select a.runtime_index, a.provider, min(a.arm_index) as arm_index, count(*) over (partition by a.runtime_index) as arms
      from registry.manifest_arms(manifest_overlaps.manifest) as a
      group by a.runtime_index, a.provider
    ),
    -- Case counts between two to whom it counts. With all others they are as one, in lower case.
    known as (
      select
        a.runtime_index,
        true as by_case,
        c.pattern collate "C" as pattern,
        c.is_prefix,
        a.arm_index,
        c.provider as owner,
        c.path
      from claim as c
      join arm as a on a.provider = c.provider
      where a.arms > 1 and c.case_sensitive
      union all
      select
        a.runtime_index,
        false,
        c.folded,
        c.is_prefix,
        a.arm_index,
        case when c.case_sensitive then '' else c.provider end,
        c.path
      from claim as c
      join arm as a on a.provider = c.provider
      where a.arms > 1
    )
    select k.*
    from known as k
    order by k.runtime_index, k.by_case, k.pattern, k.is_prefix desc, k.arm_index, k.path
  loop
    if (claim.runtime_index, claim.by_case) is distinct from (runtime_index, by_case) then
      runtime_index := claim.runtime_index;
      by_case := claim.by_case;
      patterns := '{}';
      prefixes := '{}';
      owners := '{}';
      paths := '{}';
      depth := 0;
      other_owner := null;
    end if;

    while depth > 0 and not case when prefixes[depth]
      then starts_with(claim.pattern, patterns[depth])
      else claim.pattern = patterns[depth] and not claim.is_prefix
    end
    loop
      depth := depth - 1;
    end loop;
    if other_owner > depth then
      other_owner := null;
    end if;

    if depth > 0 and (claim.owner <> owners[1] or other_owner is not null) then
      for place in 1 .. depth loop
        if owners[place] <> claim.owner then
          return next (
            claim.path, format('could claim the same id as %s, for runtimes[%s]', paths[place], runtime_index)
          )::registry.manifest_problem;
        end if;
      end loop;
      -- There can be as many as the square of the patterns, and nobody reads them all.
      comparisons := comparisons + depth;
      exit when comparisons > most_comparisons;
    end if;

    depth := depth + 1;
    patterns[depth] := claim.pattern;
    prefixes[depth] := claim.is_prefix;
    owners[depth] := claim.owner;
    paths[depth] := claim.path;
    if other_owner is null and claim.owner <> owners[1] then
      other_owner := depth;
    end if;
  end loop;
end
$$;
comment on function registry.manifest_overlaps(jsonb) is
  'Internal: the prefixes and aliases of a manifest that could claim the same id as those of another provider of the same runtime; not all, where there are very many.';

create or replace function registry.manifest_problems(manifest jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
-- A plan of its own would hold the manifest several times.
set plan_cache_mode = force_generic_plan
as $$
declare
  most_claims constant bigint := 2000000;
  claims bigint;
begin
  -- Shapes.
  return query
    select * from registry.shape_problems(
      '',
      manifest_problems.manifest,
      '{"schema_version": "number", "providers": "array", "runtimes": "array"}',
      '{"equivalents": "array", "deprecations": "array"}'
    );
  if jsonb_typeof(manifest_problems.manifest) is distinct from 'object' then
    return;
  end if;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('providers[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"billed_to": "string", "auth_env": "array", "model_prefixes": "array", "model_aliases": "array",
        "case_sensitive": "boolean"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"default_model": "string", "model_policy": "string", "arms": "array"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s].arms[%s]', r.runtime_index, e.place - 1),
      e.item,
      '{"provider": "string"}',
      '{"models": "array"}'
    ) as problem;
  return query
    select format('equivalents[%s]', e.place - 1), 'must be an array'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
      with ordinality as e (item, place)
    where jsonb_typeof(e.item) <> 'array';
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('deprecations[%s]', e.place - 1),
      e.item,
      '{"model": "string", "deprecated_at": "string"}',
      '{"runtimes": "array", "sunset_at": "string", "successor": "string"}'
    ) as problem;

  -- Values of a fixed set, and times.
  return query
    select 'schema_version', 'must be 1, the only version this release reads'
    where jsonb_typeof(manifest_problems.manifest -> 'schema_version') = 'number'
      and manifest_problems.manifest -> 'schema_version' <> '1';
  return query
    select format('providers[%s].billed_to', p.provider_index), 'must be platform or tenant'
    from registry.manifest_providers(manifest_problems.manifest) as p
    where p.billed_to not in ('platform', 'tenant');
  return query
    select format('runtimes[%s].model_policy', r.runtime_index), 'must be registered or any'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.model_policy not in ('registered', 'any');
  return query
    select
      format('deprecations[%s].%s', e.place - 1, named.key),
      'must be a date or a time in UTC, such as 2026-03-01 or 2026-03-01T12:00:00Z'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join (values ('deprecated_at'), ('sunset_at')) as named (key)
    where jsonb_typeof(e.item -> named.key) = 'string' and registry.manifest_time(e.item ->> named.key) is null;
  return query
    select format('deprecations[%s].sunset_at', d.deprecation_index), 'must be after deprecated_at'
    from registry.manifest_deprecations(manifest_problems.manifest) as d
    where d.sunset_at <= d.deprecated_at;

  -- Ids and names.
  return query
    select id.path, registry.id_problem(id.value)
    from (
      select format('providers[%s].%s', p.place - 1, named.key), named.value
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
        with ordinality as p (item, place)
      cross join lateral (
        select 'name', p.item -> 'name'
        where jsonb_typeof(p.item -> 'name') = 'string'
        union all
        select format('%s[%s]', list.key, e.place - 1), e.item
        from (values ('auth_env'), ('model_prefixes'), ('model_aliases')) as list (key)
        cross join lateral jsonb_array_elements(registry.manifest_array(p.item -> list.key))
          with ordinality as e (item, place)
      ) as named (key, value)
      union all
      select format('runtimes[%s].%s', r.place - 1, named.key), r.item -> named.key
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
        with ordinality as r (item, place)
      cross join (values ('name'), ('default_model')) as named (key)
      where jsonb_typeof(r.item -> named.key) = 'string'
      union all
      select format('runtimes[%s].arms[%s].provider', a.runtime_index, a.arm_index), to_jsonb(a.provider)
      from registry.manifest_arms(manifest_problems.manifest) as a
      where a.provider is not null
      union all
      select format('runtimes[%s].arms[%s].models[%s]', a.runtime_index, a.arm_index, e.place - 1), e.item
      from registry.manifest_arms(manifest_problems.manifest) as a
      cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
      union all
      select format('equivalents[%s][%s]', g.place - 1, e.place - 1), e.item
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
        with ordinality as g (item, place)
      cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
      union all
      select format('deprecations[%s].%s', d.deprecation_index, named.key), to_jsonb(named.value)
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral (values ('model', d.model), ('successor', d.successor)) as named (key, value)
      where named.value is not null
      union all
      select format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1), e.item
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
    ) as id (path, value)
    -- Most ids are plain ASCII, and that is seen faster than by a call.
    where not (
        jsonb_typeof(id.value) = 'string' and id.value #>> '{}' ~ '^[!-~]+$' and octet_length(id.value #>> '{}') <= 255
      )
      and registry.id_problem(id.value) is not null;

  -- Names that stand twice, or for nothing.
  return query
    select format('providers[%s].name', named.provider_index), 'is the name of an earlier provider'
    from (
      select
        p.provider_index,
        row_number() over (partition by p.provider order by p.provider_index) as occurrence
      from registry.manifest_providers(manifest_problems.manifest) as p
      where p.provider is not null
    ) as named
    where named.occurrence > 1;
  return query
    select format('runtimes[%s].name', named.runtime_index), 'is the name of an earlier runtime'
    from (
      select
        r.runtime_index,
        row_number() over (partition by r.runtime order by r.runtime_index) as occurrence
      from registry.manifest_runtimes(manifest_problems.manifest) as r
      where r.runtime is not null
    ) as named
    where named.occurrence > 1;
  return query
    select
      format('runtimes[%s].arms[%s].provider', arm.runtime_index, arm.arm_index),
      case when arm.is_known then 'is the provider of an earlier arm' else 'is not the name of a provider' end
    from (
      select
        a.runtime_index,
        a.arm_index,
        known.provider is not null as is_known,
        row_number() over (partition by a.runtime_index, a.provider order by a.arm_index) as occurrence
      from registry.manifest_arms(manifest_problems.manifest) as a
      left join (
        select distinct p.provider from registry.manifest_providers(manifest_problems.manifest) as p
      ) as known on known.provider = a.provider
      where a.provider is not null
    ) as arm
    where not arm.is_known or arm.occurrence > 1;
  return query
    select format('runtimes[%s].default_model', r.runtime_index), 'is not on the menu of this runtime'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.default_model is not null
      and not exists (
        select
        from registry.manifest_models(manifest_problems.manifest) as m
        where m.runtime_index = r.runtime_index and m.model = r.default_model
      );
  return query
    select
      format('equivalents[%s][%s]', equivalent.group_index, equivalent.model_index),
      case when equivalent.is_known then 'stands in the equivalents before' else 'is not on the menu of any runtime' end
    from (
      select
        e.group_index,
        e.model_index,
        known.model is not null as is_known,
        row_number() over (partition by e.model order by e.group_index, e.model_index) as occurrence
      from registry.manifest_equivalents(manifest_problems.manifest) as e
      left join (
        select distinct m.model from registry.manifest_models(manifest_problems.manifest) as m
      ) as known on known.model = e.model
    ) as equivalent
    where not equivalent.is_known or equivalent.occurrence > 1;

  -- What a deprecation names: a model on a menu, once for each runtime, and another model on a menu to succeed it.
  return query
    with listed as materialized (
      select distinct m.runtime collate "C" as runtime, m.model collate "C" as model
      from registry.manifest_models(manifest_problems.manifest) as m
    ),
    deprecated as materialized (
      select * from registry.manifest_deprecations(manifest_problems.manifest)
    ),
    -- A runtime's name, or null: wherever the model is on a menu.
    meant as (
      select
        d.deprecation_index,
        e.place,
        format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1) as path,
        d.model,
        e.item #>> '{}' as runtime,
        l.model is not null as is_known
      from deprecated as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
      left join listed as l on l.runtime = e.item #>> '{}' and l.model = d.model
      where d.model is not null and jsonb_typeof(e.item) = 'string'
      union all
      select
        d.deprecation_index, 1, format('deprecations[%s].model', d.deprecation_index), d.model, null, l.model is not null
      from deprecated as d
      left join (select distinct each.model from listed as each) as l on l.model = d.model
      where d.model is not null and d.runtimes is null
    ),
    judged as (
      select
        m.path,
        m.runtime,
        m.is_known,
        -- The same again; or everywhere before here; or here before everywhere.
        row_number() over (partition by m.model, m.runtime order by m.deprecation_index, m.place) > 1
          or case when m.runtime is null then
            min(m.deprecation_index) filter (where m.runtime is not null and m.is_known) over (partition by m.model)
          else
            min(m.deprecation_index) filter (where m.runtime is null) over (partition by m.model)
          end < m.deprecation_index as is_late
      from meant as m
    )
    select
      j.path,
      case
        when j.is_known then 'is deprecated by an earlier entry for the same runtime'
        when j.runtime is null then 'is not on the menu of any runtime'
        else 'is not a runtime with this model on its menu'
      end
    from judged as j
    where not j.is_known or j.is_late
    union all
    select format('deprecations[%s].runtimes', d.deprecation_index), 'must not be empty'
    from deprecated as d
    where d.runtimes = '[]'
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is the deprecated model itself'
    from deprecated as d
    where d.successor = d.model
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is not on the menu of any runtime'
    from deprecated as d
    where d.successor is not null and not exists (select from listed as l where l.model = d.successor)
    order by 1, 2;

  -- Each runtime has its own row for each prefix and alias: that is where a short manifest could become very much.
  select sum(owned.claims)
  into claims
  from registry.manifest_arms(manifest_problems.manifest) as a
  join (
    select c.provider, count(*) as claims
    from registry.manifest_claims(manifest_problems.manifest) as c
    group by c.provider
  ) as owned on owned.provider = a.provider;
  if claims > most_claims then
    return next (
      'runtimes',
      format('have %s prefixes and aliases, counted for each runtime, and can have %s', claims, most_claims)
    )::registry.manifest_problem;
    return;
  end if;

  -- Two providers of one runtime that could claim the same id.
  return query
    select found.path, found.problem
    from registry.manifest_overlaps(manifest_problems.manifest) as found
    order by found.path, found.problem;
end
$$;
comment on function registry.manifest_problems(jsonb) is
  'Internal: every problem of a manifest with the path it is found at; none if it can be loaded.';

-- Internal. What a manifest says, one row a thing, so that two manifests can be compared by joining their facts.

create or replace function registry.manifest_facts(manifest jsonb)
returns table (
  fact jsonb,
  says jsonb,
  list text,
  place bigint
)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select
    jsonb_build_object('kind', 'provider', 'provider', p.provider),
    jsonb_build_object(
      'billed_to', p.billed_to,
      'auth_env', p.auth_env,
      'model_prefixes', p.model_prefixes,
      'model_aliases', p.model_aliases,
      'case_sensitive', p.case_sensitive
    ),
    '{"of": "provider"}',
    p.provider_index
  from registry.manifest_providers(manifest_facts.manifest) as p
  union all
  select
    jsonb_build_object('kind', 'runtime', 'runtime', r.runtime),
    jsonb_build_object('default_model', coalesce(r.default_model, first.model), 'model_policy', r.model_policy),
    '{"of": "runtime"}',
    r.runtime_index
  from registry.manifest_runtimes(manifest_facts.manifest) as r
  left join (
    select distinct on (a.runtime) a.runtime, a.models ->> 0 as model
    from registry.manifest_arms(manifest_facts.manifest) as a
    where a.models <> '[]'
    order by a.runtime, a.arm_index
  ) as first on first.runtime = r.runtime
  union all
  select
    jsonb_build_object('kind', 'arm', 'runtime', a.runtime, 'provider', a.provider),
    '{}',
    jsonb_build_object('of', 'provider', 'runtime', a.runtime)::text,
    a.arm_index
  from registry.manifest_arms(manifest_facts.manifest) as a
  union all
  select
    jsonb_build_object('kind', 'model', 'runtime', m.runtime, 'provider', m.provider, 'model', m.model),
    case when coalesce(there.model, everywhere.model) is null then '{}' else
      jsonb_strip_nulls(jsonb_build_object(
        'deprecated_at', to_char(
          coalesce(there.deprecated_at, everywhere.deprecated_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        ),
        'sunset_at', to_char(
          coalesce(there.sunset_at, everywhere.sunset_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        ),
        'successor', coalesce(there.successor, everywhere.successor)
      ))
    end,
    arm.list,
    m.place
  from (
    select listed.runtime, listed.provider, listed.model, min(listed.model_index) as place
    from registry.manifest_models(manifest_facts.manifest) as listed
    group by listed.runtime, listed.provider, listed.model
  ) as m
  join (
    select
      a.runtime, a.provider,
      jsonb_build_object('of', 'model', 'runtime', a.runtime, 'provider', a.provider)::text as list
    from registry.manifest_arms(manifest_facts.manifest) as a
  ) as arm on arm.runtime = m.runtime and arm.provider = m.provider
  left join registry.manifest_deprecated(manifest_facts.manifest) as there
    on there.model = m.model and there.runtime = m.runtime
  left join registry.manifest_deprecated(manifest_facts.manifest) as everywhere
    on everywhere.model = m.model and everywhere.is_everywhere
  union all
  select distinct
    jsonb_build_object(
      'kind', 'equivalent',
      'models', (select coalesce(jsonb_agg(e.model order by e.model), '[]') from jsonb_array_elements(g.item) as e (model))
    ),
    '{}'::jsonb,
    null,
    null::bigint
  from jsonb_array_elements(registry.manifest_array(manifest_facts.manifest -> 'equivalents')) as g (item)
$$;
comment on function registry.manifest_facts(jsonb) is
  'Internal: the providers, runtimes, arms, models and equivalents of a valid manifest, what it says of each, and where in which list it has it.';

create or replace function registry.manifest_side(side text, says jsonb, other jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when differing.says = '{}' then '{}' else jsonb_build_object(manifest_side.side, differing.says) end
  from (
    select manifest_side.says - array(
      select s.key
      from jsonb_each(manifest_side.says) as s
      where manifest_side.other -> s.key is not distinct from s.value
    )
  ) as differing (says)
$$;
comment on function registry.manifest_side(text, jsonb, jsonb) is
  'Internal: what one manifest says of a thing and the other does not, under the key side; an empty object if there is nothing.';

create or replace function registry.manifest_difference(
  before jsonb,
  after jsonb,
  out added jsonb,
  out removed jsonb,
  out changed jsonb
)
language sql
immutable
set search_path = pg_catalog, pg_temp
-- Sorting by jsonb is slow, hashing is not.
set enable_mergejoin = off
as $$
  with pair as materialized (
    select
      coalesce(new.fact, old.fact) as fact,
      old.says as old_says,
      new.says as new_says,
      coalesce(new.list, old.list) as list,
      old.place as old_place,
      new.place as new_place
    from registry.manifest_facts(manifest_difference.before) as old
    full join registry.manifest_facts(manifest_difference.after) as new on new.fact = old.fact
  ),
  -- The order among those that are in both: what merely makes room for another has not moved.
  kept as (
    select p.list collate "C" as list, p.fact, p.old_place, p.new_place
    from pair as p
    where p.old_says is not null and p.new_says is not null and p.list is not null
  ),
  reordered as (
    select distinct step.list
    from (
      select k.list, k.new_place < lag(k.new_place) over (partition by k.list order by k.old_place) as is_back from kept as k
    ) as step
    where step.is_back
  ),
  ranked as (
    select
      k.list::jsonb as list,
      k.fact -> (k.list::jsonb ->> 'of') as name,
      row_number() over (partition by k.list order by k.old_place) as old_rank,
      row_number() over (partition by k.list order by k.new_place) as new_rank
    from kept as k
    join reordered as r on r.list = k.list
  ),
  entry as (
    select
      p.fact
        || case when p.old_says <> '{}' then registry.manifest_side('before', p.old_says, p.new_says) else '{}' end
        || case when p.new_says <> '{}' then registry.manifest_side('after', p.new_says, p.old_says) else '{}' end
        as item,
      p.old_says is null as is_added,
      p.new_says is null as is_removed
    from pair as p
    where p.old_says is distinct from p.new_says
    union all
    select
      '{"kind": "order"}' || r.list || jsonb_build_object(
        'before', jsonb_agg(r.name order by r.old_rank),
        'after', jsonb_agg(r.name order by r.new_rank)
      ),
      false,
      false
    from ranked as r
    where r.old_rank <> r.new_rank
    group by r.list
  )
  -- Not jsonb_agg, whose work grows with the square of an item, such as a provider with very many prefixes.
  select
    to_jsonb(array(select e.item from entry as e where e.is_added order by e.item)),
    to_jsonb(array(select e.item from entry as e where e.is_removed order by e.item)),
    to_jsonb(array(select e.item from entry as e where not e.is_added and not e.is_removed order by e.item))
$$;
comment on function registry.manifest_difference(jsonb, jsonb) is
  'Internal: what a manifest adds to another, removes from it, says otherwise and puts in another order.';

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

-- Internal. An OpenPGP message proves all it says but where it ends: pgcrypto also reads one whose last length is too long.
--
-- As keyring.encrypt makes it, a message is the way to its key (14 bytes) and a packet: a tag, then parts of 16384 bytes,
-- each after the byte 0xEE, then the last part after its length (1, 2 or 5 bytes).

create or replace function keyring.is_whole(message bytea)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  place integer := 15;
  first integer := get_byte(is_whole.message, place);
begin
  while first = 238 loop
    place := place + 16385;
    first := get_byte(is_whole.message, place);
  end loop;
  if first < 192 then
    return octet_length(is_whole.message) = place + 1 + first;
  elsif first < 224 then
    return octet_length(is_whole.message)
      = place + 2 + (first - 192) * 256 + get_byte(is_whole.message, place + 1) + 192;
  end if;
  return first = 255
    and substr(is_whole.message, place + 2, 4) = int4send(octet_length(is_whole.message) - place - 5);
end
$$;
comment on function keyring.is_whole(bytea) is 'Internal: whether a message that opened ends where it says.';

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
  secret constant text := keyring.open(unwrap.wrapped, unwrap.kek, format(E'runtime-registry key %s\n', unwrap.key_id));
begin
  return (case when secret is not null then unwrap.key_id end, secret)::keyring.data_key;
end
$$;
comment on function keyring.unwrap(integer, bytea, text) is
  'Internal: a wrapped data key, opened; all null if the KEK does not fit.';

-- Internal. It proves that the KEK fits before anything is written: opening the active key is the check.

create or replace function keyring.open_key(stored keyring.keys, is_needed boolean)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key keyring.data_key;
begin
  if stored.id is null then
    return null;
  end if;
  key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.kek', true));
  -- While the KEK is being changed (keyring.rewrap), sessions bring the new one along: one of the two fits, before and after.
  if key.key_id is null then
    key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.new_kek', true));
  end if;
  if key.key_id is null and open_key.is_needed then
    perform keyring.session_kek();
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return key;
end
$$;
comment on function keyring.open_key(keyring.keys, boolean) is
  'Internal: a key of the keyring, opened; null for null.
Where the session has no key-encryption key that fits: null too or, if the key is needed, ENCRYPTION_KEY_MISSING.';

-- Internal.

create or replace function keyring.active_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.state = 'active';
  return keyring.open_key(stored, is_needed => true);
end
$$;
comment on function keyring.active_key() is
  'Internal: the key that seals, opened; null if the keyring has none. Raises ENCRYPTION_KEY_MISSING.';

-- Internal.

create or replace function keyring.any_key(key_id integer)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.id = any_key.key_id;
  return keyring.open_key(stored, is_needed => false);
end
$$;
comment on function keyring.any_key(integer) is
  'Internal: a key of the keyring, active or retired, opened; null if there is none or the KEK does not fit.';

-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

create or replace function keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fitting keyring.data_key := with_key;
begin
  if unseal.key_id is null then
    begin
      return convert_from(unseal.sealed, 'UTF8');
    exception
      when character_not_in_repertoire then
        return null;
    end;
  end if;
  if unseal.key_id is distinct from fitting.key_id then
    fitting := keyring.any_key(unseal.key_id);
  end if;
  return keyring.open(unseal.sealed, fitting.secret, unseal.ws || ' ' || unseal.name || E'\n');
end
$$;
comment on function keyring.unseal(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.
with_key: the key to try first; another key of the keyring is fetched by its id.';

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

-- Internal.

create or replace function workspace.workspace_not_found(ws uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if workspace_not_found.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;
  raise exception using
    errcode = 'PT404',
    message = format('There is no workspace %s.', workspace_not_found.ws),
    detail = jsonb_build_object('code', 'WORKSPACE_NOT_FOUND', 'workspace_id', workspace_not_found.ws),
    hint = 'It was deleted, or never created; workspace.history shows which.';
end
$$;
comment on function workspace.workspace_not_found(uuid) is 'Internal: raises WORKSPACE_NOT_FOUND; INVALID_ARGUMENT for null.';

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

-- Internal. Whoever changes workspaces calls this first: registry, then keyring, then workspaces is the order of all locks.

create or replace function workspace.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') = 'read committed' then
    -- registry.hold and keyring.hold in one statement.
    lock table registry.state, keyring.keys in row share mode;
  else
    -- They lock rows, too: that of the registry before the table of keys, as keyring.init does.
    perform registry.hold();
    perform keyring.hold();
  end if;
end
$$;
comment on function workspace.hold() is
  'Internal: keeps the registry and the keyring as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older.';

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

-- Internal.

create or replace function workspace.version_conflict(ws uuid, version bigint, expected_version bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT409',
    message = format(
      'The workspace is at version %s, not at the expected %s.',
      version_conflict.version,
      version_conflict.expected_version
    ),
    detail = jsonb_build_object(
      'code', 'VERSION_CONFLICT',
      'workspace_id', version_conflict.ws,
      'expected_version', version_conflict.expected_version,
      'version', version_conflict.version
    ),
    hint = 'Somebody else changed the workspace. Read it again and decide anew.';
end
$$;
comment on function workspace.version_conflict(uuid, bigint, bigint) is 'Internal: raises VERSION_CONFLICT.';

-- Internal. The one place that turns a row of changes into an answer; the models come unsealed from the caller.

create or replace function workspace.change_of(recorded workspace.changes, previous_model text, model text)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    recorded.workspace_id,
    recorded.version,
    recorded.changed,
    recorded.previous_runtime,
    recorded.runtime,
    change_of.previous_model,
    change_of.model,
    recorded.model_source,
    recorded.model_source in ('restored', 'equivalent', 'default'),
    recorded.provider,
    recorded.billed_to,
    recorded.billing_changed,
    -- needs_restart
    recorded.changed and case
      when recorded.action in ('create_workspace', 'delete_workspace') then false
      when recorded.action = 'rename_workspace' then
        recorded.runtime <> recorded.previous_runtime or change_of.previous_model is distinct from change_of.model
      else true
    end,
    recorded.model_deprecated,
    recorded.model_sunset_at
  )::workspace.change;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';

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

create or replace function workspace.history(ws uuid)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
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
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := workspace.secret_name(set_secret.name);
  current workspace.snapshot;
  stored keyring.sealed_value;
begin
  -- The value is kept as it is: white space and line breaks belong to it.
  if set_secret.value is null then
    perform registry.invalid_argument('value', 'is null');
  elsif set_secret.value = '' then
    perform registry.invalid_argument('value', 'is blank');
  elsif octet_length(set_secret.value) > 1048576 then
    perform registry.invalid_argument('value', 'is longer than 1048576 bytes');
  end if;

  current := workspace.lock_workspace(set_secret.ws);
  if set_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, set_secret.expected_version);
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = current.workspace_id and s.key = called;
  if keyring.unseal(current.with_key, current.workspace_id, called, stored.sealed, stored.key_id) = set_secret.value then
    return workspace.write_secret_change(current, called, 'set_secret', false);
  end if;
  -- Sealed before it is written: a plain value must never reach a table or the WAL.
  stored := keyring.seal(current.with_key, current.workspace_id, called, set_secret.value);
  return workspace.write_secret_change(current, called, 'set_secret', true, stored);
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

create or replace function workspace.delete_secret(ws uuid, name text, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := workspace.secret_name(delete_secret.name);
  current workspace.snapshot;
begin
  current := workspace.lock_workspace(delete_secret.ws, needs_key => false);
  if delete_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_secret.expected_version);
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
set enable_seqscan = off
set jit = off
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
set enable_seqscan = off
set jit = off
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

create or replace function fleet.compare_registry(manifest jsonb)
returns fleet.registry_load
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  current_manifest jsonb;
  load fleet.registry_load;
begin
  -- || '{}': unpacked here once, not wherever it is used.
  select s.revision, coalesce(r.manifest, '{}') || '{}'
  into load.revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;

  load.added := '[]';
  load.removed := '[]';
  load.changed := '[]';
  load.orphans := '[]';
  load.loaded := compare_registry.manifest <> current_manifest;
  if load.loaded then
    select d.added, d.removed, d.changed
    into load.added, load.removed, load.changed
    from registry.manifest_difference(current_manifest, compare_registry.manifest) as d;
  end if;
  return load;
end
$$;
comment on function fleet.compare_registry(jsonb) is
  'Internal: what loading a valid manifest would change, but for orphans; loaded: it is another than the current revision''s.';

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
-- A plan of its own would hold the manifest several times.
set plan_cache_mode = force_generic_plan
as $$
declare
  problems jsonb;
  problems_total bigint;
  content registry.content;
  routable_pairs fleet.pair[];
  orphaned_pairs fleet.pair[];
  in_use jsonb;
  first_orphans jsonb;
  orphans_total bigint;
  ids uuid[];
  loaded_at timestamptz;
  load fleet.registry_load;  -- What is to be answered; loaded: the manifest is another.
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock all that takes long: nobody has to wait until the manifest is judged, compared and taken apart.
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

  load := fleet.compare_registry(replace_registry.manifest);
  if not load.loaded then
    return load;
  end if;
  content := registry.manifest_content(replace_registry.manifest);

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;

  -- Another load came first.
  if not exists (select from registry.state as s where s.revision = load.revision) then
    load := fleet.compare_registry(replace_registry.manifest);
    if not load.loaded then
      return load;
    end if;
  end if;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from unnest(content.runtimes) as kept where kept.name = w.runtime
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
    perform registry.replace_registry(content);

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
      load.loaded := false;
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
  load.revision := load.revision + 1;
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
dry_run: answer, with the orphans, but change nothing (it takes the same lock, unless the manifest is the current one).
The manifest is judged and compared first. Then it waits for all transactions that have decided by the current registry, and new ones
wait for it, until the transaction that calls it ends: give it a transaction of its own, and on a busy server a lock_timeout.
At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED,
ENCRYPTION_KEY_MISSING.';

-- Internal.

create or replace function fleet.require_revision(revision bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  manifest jsonb;
begin
  if require_revision.revision is null then
    perform registry.invalid_argument('revision', 'is null');
  end if;
  -- || '{}': unpacked here once, not wherever it is used.
  select r.manifest || '{}' into manifest from registry.revisions as r where r.revision = require_revision.revision;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The registry has no revision %s.', require_revision.revision),
      detail = jsonb_build_object('code', 'REVISION_NOT_FOUND', 'revision', require_revision.revision),
      hint = 'Take one that fleet.revisions lists.';
  end if;
  return manifest;
end
$$;
comment on function fleet.require_revision(bigint) is 'Internal: a revision''s manifest. Raises INVALID_ARGUMENT or REVISION_NOT_FOUND.';

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
    perform workspace.hold();
  end if;
end
$$;
comment on function fleet.begin_batch(integer, boolean) is
  'Internal: checks the arguments and, unless nothing is to be written, holds the registry and the keyring.';

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
