create or replace function fleet.orphans(runtime text default null)
returns setof fleet.orphan
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked constant text collate "C" :=
    case when orphans.runtime is not null then registry.clean_text(orphans.runtime, 'runtime') end;
begin
  if asked is not null then
    perform registry.require_runtime(asked);
  end if;
  return query select o.* from fleet.find_orphans(asked, null, null) as o;
end
$$;
comment on function fleet.orphans(text) is
  'Every workspace whose model is not routable on its runtime now, or cannot be read, and what fleet.reset_orphans would give it.
runtime: on this runtime alone; null: on all.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING.';
