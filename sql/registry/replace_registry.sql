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
