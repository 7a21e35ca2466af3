-- Internal.

create or replace function workspace.route(ws uuid, runtime text, model text)
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return registry.route(route.runtime, route.model, workspace.credentials(route.ws));
end
$$;
comment on function workspace.route(uuid, text, text) is
  'Internal: registry.route with the credentials of a workspace.';
