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
