create or replace function registry.list_runtimes()
returns setof registry.runtime_entry
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    r.name,
    r.model_policy,
    r.default_model,
    r.menu_size,
    array(select a.provider::text from registry.arms as a where a.runtime = r.name order by a.position)
  from registry.runtimes as r
  order by r.position
$$;
comment on function registry.list_runtimes() is 'Every runtime in the registry, in the manifest''s order, with its default model and providers.';
