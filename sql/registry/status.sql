create or replace function registry.status()
returns registry.installation
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select (select v.version_num::text from registry.alembic_version as v), (select s.revision from registry.state as s)
$$;
comment on function registry.status() is
  'What is installed and loaded: whoever serves from this database looks here whether it can.';
