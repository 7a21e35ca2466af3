create or replace function registry.menu(runtime text)
returns setof text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(menu.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.model::text
    from registry.models as m
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;
comment on function registry.menu(text) is
  'A runtime''s registered models in order: the ids of its arms, each where it first occurs.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
