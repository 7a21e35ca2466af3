-- Roles belong to the whole cluster: another database may have made them, perhaps at this very moment.

do $$
declare
  role_name text;
begin
  foreach role_name in array array['runtime_registry_reader', 'runtime_registry_operator', 'runtime_registry_admin'] loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        when duplicate_object or unique_violation then
          null;
      end;
    end if;
  end loop;
end
$$;
