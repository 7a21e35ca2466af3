create or replace function fleet.revisions()
returns setof fleet.revision
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    r.revision,
    r.loaded_at,
    r.loaded_by,
    r.restored_from,
    r.revision = s.revision,
    jsonb_array_length(r.manifest -> 'providers'),
    jsonb_array_length(r.manifest -> 'runtimes'),
    (
      select count(distinct (m.runtime, m.model))
      from registry.manifest_models(r.manifest) as m
    )
  from registry.revisions as r
  cross join registry.state as s
  order by r.revision desc
$$;
comment on function fleet.revisions() is 'Every registry that was ever loaded, the newest first.';
