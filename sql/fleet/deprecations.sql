create or replace function fleet.deprecations()
returns setof fleet.deprecation
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.workspace_id, s.runtime, s.model, m.deprecated_at, m.sunset_at, m.successor::text
    from fleet.stored_models(
      array(select distinct d.runtime::text from registry.models as d where d.deprecated_at is not null)
    ) as s
    join registry.models as m on m.runtime = s.runtime and m.model = s.model
    where m.menu_position is not null and m.deprecated_at is not null
    order by m.sunset_at, m.deprecated_at, s.runtime, s.model, s.workspace_id;
end
$$;
comment on function fleet.deprecations() is
  'Every workspace whose model the registry deprecates, those first whose model ends first. A model that cannot be read is not among them.
Errors: ENCRYPTION_KEY_MISSING.';
