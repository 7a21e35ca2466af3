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
