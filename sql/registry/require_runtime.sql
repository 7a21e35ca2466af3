-- Internal.

create or replace function registry.require_runtime(runtime text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from registry.runtimes as r where r.name = require_runtime.runtime) then
    return;
  end if;
  if exists (select from registry.state as s where s.revision = 0) then
    raise exception using
      errcode = 'PT422',
      message = 'No registry is loaded.',
      detail = jsonb_build_object('code', 'REGISTRY_UNAVAILABLE'),
      hint = 'Load a manifest with fleet.load_registry.';
  end if;
  raise exception using
    errcode = 'PT422',
    message = format('The runtime %s is not in the registry.', to_json(require_runtime.runtime)),
    detail = jsonb_build_object(
      'code', 'RUNTIME_UNSUPPORTED',
      'runtime', require_runtime.runtime,
      'valid_runtimes', (
        select coalesce(jsonb_agg(r.name order by r.position), '[]') from registry.runtimes as r
      )
    ),
    hint = 'Take one of valid_runtimes. Runtime names are case-sensitive.';
end
$$;
comment on function registry.require_runtime(text) is
  'Internal: raises RUNTIME_UNSUPPORTED, or REGISTRY_UNAVAILABLE where nothing was ever loaded, unless the runtime is registered.';
