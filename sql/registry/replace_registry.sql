-- Internal. The caller holds the exclusive lock on registry.state and has found no problem in the manifest. Rows that
-- stay as they are are not touched: a small change of a large registry is a small write.

create or replace function registry.replace_registry(manifest jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  new_providers registry.providers[];
  new_arms registry.arms[];
  new_models registry.models[];
  new_runtimes registry.runtimes[];
  new_claims registry.claims[];
  new_equivalents registry.equivalents[];
begin
  new_providers := array(
    select row(p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive)::registry.providers
    from registry.manifest_providers(replace_registry.manifest) as p
  );

  new_arms := array(
    select row(a.runtime, a.arm_index + 1, a.provider)::registry.arms
    from registry.manifest_arms(replace_registry.manifest) as a
  );

  new_models := array(
    select row(
      listed.runtime,
      listed.model,
      listed.arm_index + 1,
      listed.provider,
      case when listed.occurrence = 1 then
        row_number() over (
          partition by listed.runtime, listed.occurrence = 1 order by listed.arm_index, listed.model_index
        )
      end,
      d.deprecated_at,
      d.sunset_at,
      d.successor,
      p.billed_to
    )::registry.models
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
    left join registry.manifest_deprecations(replace_registry.manifest) as d
      on d.model = listed.model and (d.runtimes is null or d.runtimes ? listed.runtime)
    join unnest(new_providers) as p on p.name = listed.provider
    where listed.occurrence_on_arm = 1
  );

  new_runtimes := array(
    select row(
      named.runtime,
      named.runtime_index + 1,
      named.model_policy,
      coalesce(named.default_model, menu.first),
      coalesce(menu.size, 0)
    )::registry.runtimes
    from registry.manifest_runtimes(replace_registry.manifest) as named
    left join (
      select m.runtime, min(m.model) filter (where m.menu_position = 1) as first, count(m.menu_position) as size
      from unnest(new_models) as m
      group by m.runtime
    ) as menu on menu.runtime = named.runtime
  );

  -- Without what a prefix of the same provider covers, so that one step down the index is enough (registry.route).
  new_claims := array(
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
    select row(a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider, p.billed_to)::registry.claims
    from uncovered as u
    join unnest(new_arms) as a on a.provider = u.provider
    join unnest(new_providers) as p on p.name = u.provider
  );

  new_equivalents := array(
    select row(e.model, e.group_index + 1)::registry.equivalents
    from registry.manifest_equivalents(replace_registry.manifest) as e
  );

  delete from registry.providers as old where not exists (select from unnest(new_providers) as new where new = old);
  insert into registry.providers
  select new.* from unnest(new_providers) as new where not exists (select from registry.providers as old where old = new);

  delete from registry.arms as old where not exists (select from unnest(new_arms) as new where new = old);
  insert into registry.arms
  select new.* from unnest(new_arms) as new where not exists (select from registry.arms as old where old = new);

  delete from registry.models as old where not exists (select from unnest(new_models) as new where new = old);
  insert into registry.models
  select new.* from unnest(new_models) as new where not exists (select from registry.models as old where old = new);

  delete from registry.claims as old where not exists (select from unnest(new_claims) as new where new = old);
  insert into registry.claims
  select new.* from unnest(new_claims) as new where not exists (select from registry.claims as old where old = new);

  delete from registry.equivalents as old where not exists (select from unnest(new_equivalents) as new where new = old);
  insert into registry.equivalents
  select new.* from unnest(new_equivalents) as new
  where not exists (select from registry.equivalents as old where old = new);

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as old
  where not exists (select from unnest(new_runtimes) as new where new.name = old.name);
  insert into registry.runtimes
  select new.* from unnest(new_runtimes) as new where not exists (select from registry.runtimes as old where old = new)
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size;
end
$$;
comment on function registry.replace_registry(jsonb) is
  'Internal: makes a manifest the registry.';
