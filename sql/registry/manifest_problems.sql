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

create or replace function registry.manifest_problems(manifest jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
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
      select distinct m.runtime, m.model from registry.manifest_models(manifest_problems.manifest) as m
    ),
    deprecated as materialized (
      select * from registry.manifest_deprecations(manifest_problems.manifest)
    ),
    meant as (
      select
        d.deprecation_index,
        e.place,
        format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1) as path,
        d.model,
        e.item #>> '{}' as runtime
      from deprecated as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
      where jsonb_typeof(e.item) = 'string'
      union all
      select d.deprecation_index, 1, format('deprecations[%s].model', d.deprecation_index), d.model, l.runtime
      from deprecated as d
      left join listed as l on l.model = d.model
      where d.runtimes is null
    ),
    judged as (
      select
        m.path,
        case
          when l.model is not null then 'is deprecated by an earlier entry for the same runtime'
          when m.runtime is null then 'is not on the menu of any runtime'
          else 'is not a runtime with this model on its menu'
        end as problem,
        l.model is not null as is_known,
        row_number() over (partition by m.model, m.runtime order by m.deprecation_index, m.place) as occurrence
      from meant as m
      left join listed as l on l.runtime = m.runtime and l.model = m.model
      where m.model is not null
    )
    select distinct j.path, j.problem from judged as j where not j.is_known or j.occurrence > 1
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

  -- Two providers of one runtime that could claim the same id. A prefix overlaps whatever begins with it, an alias only
  -- its equal. Every pattern's beginnings are looked up among the patterns, so the work grows with their number, not with
  -- its square; what is blank or too long is reported above.
  return query
    with claim as materialized (
      select c.provider, c.path, c.pattern, lower(c.pattern collate "C") as folded, c.is_prefix, c.case_sensitive
      from registry.manifest_claims(manifest_problems.manifest) as c
      where octet_length(c.pattern) between 1 and 255
    ),
    beginning as materialized (
      select
        c.provider, c.path, c.pattern, c.folded, c.is_prefix, c.case_sensitive,
        left(c.folded, known.length) as start
      from claim as c
      join (select distinct length(k.folded) as length from claim as k) as known on known.length <= length(c.folded)
    )
    select distinct
      longer.path,
      format('could claim the same id as %s, for runtimes[%s]', shorter.path, arm.runtime_index)
    from beginning as longer
    join claim as shorter on shorter.folded = longer.start and shorter.provider <> longer.provider
    join registry.manifest_arms(manifest_problems.manifest) as arm on arm.provider = longer.provider
    join registry.manifest_arms(manifest_problems.manifest) as other
      on other.provider = shorter.provider and other.runtime_index = arm.runtime_index
    where case
        when shorter.is_prefix then
          -- An alias that equals a prefix meets it here once; equal prefixes meet twice, and one report is enough.
          shorter.folded <> longer.folded or not longer.is_prefix or other.arm_index < arm.arm_index
        else
          shorter.folded = longer.folded and not longer.is_prefix and other.arm_index < arm.arm_index
      end
      -- Where case counts on both sides, it must be the same.
      and (not (shorter.case_sensitive and longer.case_sensitive) or starts_with(longer.pattern, shorter.pattern))
    order by 1, 2;
end
$$;
comment on function registry.manifest_problems(jsonb) is
  'Internal: every problem of a manifest with the path it is found at; none if it can be loaded.';
