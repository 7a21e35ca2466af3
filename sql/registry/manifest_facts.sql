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
