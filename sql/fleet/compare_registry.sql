-- Internal.

create or replace function fleet.compare_registry(manifest jsonb)
returns fleet.registry_load
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  current_manifest jsonb;
  load fleet.registry_load;
begin
  -- || '{}': unpacked here once, not wherever it is used.
  select s.revision, coalesce(r.manifest, '{}') || '{}'
  into load.revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;

  load.added := '[]';
  load.removed := '[]';
  load.changed := '[]';
  load.orphans := '[]';
  load.loaded := compare_registry.manifest <> current_manifest;
  if load.loaded then
    select d.added, d.removed, d.changed
    into load.added, load.removed, load.changed
    from registry.manifest_difference(current_manifest, compare_registry.manifest) as d;
  end if;
  return load;
end
$$;
comment on function fleet.compare_registry(jsonb) is
  'Internal: what loading a valid manifest would change, but for orphans; loaded: it is another than the current revision''s.';
