-- Internal. What a manifest says, one row a thing, so that two manifests can be compared by joining their facts.

create or replace function registry.manifest_facts(manifest jsonb)
returns table (
  fact jsonb,
  says jsonb
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
    )
  from registry.manifest_providers(manifest_facts.manifest) as p
  union all
  select
    jsonb_build_object('kind', 'runtime', 'runtime', r.runtime),
    jsonb_build_object(
      'default_model', coalesce(r.default_model, first.model),
      'model_policy', r.model_policy,
      'arms', jsonb_path_query_array(r.arms, '$[*].provider')
    )
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
    jsonb_build_object('models', a.models)
  from registry.manifest_arms(manifest_facts.manifest) as a
  union all
  select distinct
    jsonb_build_object('kind', 'model', 'runtime', m.runtime, 'provider', m.provider, 'model', m.model), '{}'::jsonb
  from registry.manifest_models(manifest_facts.manifest) as m
  union all
  select distinct jsonb_build_object('kind', 'equivalent', 'models', g.item), '{}'::jsonb
  from jsonb_array_elements(registry.manifest_array(manifest_facts.manifest -> 'equivalents')) as g (item)
$$;
comment on function registry.manifest_facts(jsonb) is
  'Internal: the providers, runtimes, arms, models and equivalents of a valid manifest, and what it says of each.';

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
as $$
  select
    coalesce(jsonb_agg(new.fact order by new.fact) filter (where old.fact is null), '[]'),
    coalesce(jsonb_agg(old.fact order by old.fact) filter (where new.fact is null), '[]'),
    coalesce(
      jsonb_agg(
        new.fact || jsonb_build_object('from', difference.before, 'to', difference.after) order by new.fact
      )
        filter (where old.says <> new.says),
      '[]'
    )
  from registry.manifest_facts(manifest_difference.before) as old
  full join registry.manifest_facts(manifest_difference.after) as new on new.fact = old.fact
  left join lateral (
    select jsonb_object_agg(o.key, o.value) as before, jsonb_object_agg(n.key, n.value) as after
    from jsonb_each(old.says) as o
    join jsonb_each(new.says) as n on n.key = o.key and n.value <> o.value
  ) as difference on true
$$;
comment on function registry.manifest_difference(jsonb, jsonb) is
  'Internal: what a manifest adds to another, removes from it and says otherwise.';
