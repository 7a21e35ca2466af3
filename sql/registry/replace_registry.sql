-- Internal. The caller holds the exclusive lock on registry.state and has found no problem in the manifest.

create or replace function registry.replace_registry(manifest jsonb, revision bigint, loaded_by text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  loaded_at constant timestamptz := clock_timestamp();
begin
  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  update registry.state as s set revision = replace_registry.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by)
  values (replace_registry.revision, replace_registry.manifest, loaded_at, replace_registry.loaded_by);

  delete from registry.equivalents as e;
  delete from registry.claims as c;
  delete from registry.models as m;
  delete from registry.arms as a;
  delete from registry.providers as p;

  insert into registry.providers (name, position, billed_to, auth_env, case_sensitive)
  select p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive
  from registry.manifest_providers(replace_registry.manifest) as p;

  insert into registry.arms (runtime, position, provider)
  select a.runtime, a.arm_index + 1, a.provider
  from registry.manifest_arms(replace_registry.manifest) as a;

  insert into registry.models (runtime, model, arm_position, provider, menu_position)
  select
    listed.runtime,
    listed.model,
    listed.arm_index + 1,
    listed.provider,
    case when listed.occurrence = 1 then
      row_number() over (
        partition by listed.runtime, listed.occurrence = 1 order by listed.arm_index, listed.model_index
      )
    end
  from (
    select
      m.runtime,
      m.model,
      m.arm_index,
      m.model_index,
      m.provider,
      row_number() over (partition by m.runtime, m.model order by m.arm_index, m.model_index) as occurrence,
      row_number() over (partition by m.runtime, m.model, m.arm_index order by m.model_index) as occurrence_on_arm
    from registry.manifest_models(replace_registry.manifest) as m
  ) as listed
  where listed.occurrence_on_arm = 1;

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as r
  where not exists (
    select
    from registry.manifest_runtimes(replace_registry.manifest) as kept
    where kept.runtime = r.name
  );
  insert into registry.runtimes as r (name, position, model_policy, default_model, menu_size)
  select
    named.runtime,
    named.runtime_index + 1,
    named.model_policy,
    coalesce(named.default_model, first.model),
    coalesce(menu.size, 0)
  from registry.manifest_runtimes(replace_registry.manifest) as named
  left join registry.models as first on first.runtime = named.runtime and first.menu_position = 1
  left join (
    select m.runtime, count(m.menu_position) as size from registry.models as m group by m.runtime
  ) as menu on menu.runtime = named.runtime
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size;

  -- Without what a prefix of the same provider covers, so that one step down the index is enough (registry.route).
  with claim as materialized (
    select distinct c.provider, c.pattern, c.is_prefix, c.case_sensitive
    from registry.manifest_claims(replace_registry.manifest) as c
  ),
  beginning as materialized (
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive, left(c.pattern, known.length) as start
    from claim as c
    join (
      select distinct length(k.pattern) as length from claim as k where k.is_prefix
    ) as known on known.length <= length(c.pattern)
  ),
  covered as (
    select longer.provider, longer.pattern, longer.is_prefix, longer.case_sensitive
    from beginning as longer
    join claim as shorter on shorter.provider = longer.provider and shorter.pattern = longer.start
    where shorter.is_prefix and (shorter.pattern <> longer.pattern or not longer.is_prefix)
  ),
  uncovered as (
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive from claim as c
    except
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive from covered as c
  )
  insert into registry.claims (runtime, case_folded, pattern, is_prefix, provider)
  select a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider
  from uncovered as u
  join registry.arms as a on a.provider = u.provider;

  insert into registry.equivalents (model, group_number)
  select e.model, e.group_index + 1
  from registry.manifest_equivalents(replace_registry.manifest) as e;
end
$$;
comment on function registry.replace_registry(jsonb, bigint, text) is
  'Internal: makes a manifest the registry, as a new revision.';
