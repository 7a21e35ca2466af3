create or replace function registry.list_models(runtime text)
returns setof registry.model_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(list_models.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.menu_position, m.model::text, m.provider::text, p.billed_to, m.model = r.default_model,
      m.deprecated_at, m.sunset_at, m.successor::text
    from registry.models as m
    join registry.providers as p on p.name = m.provider
    join registry.runtimes as r on r.name = m.runtime
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;
comment on function registry.list_models(text) is
  'A runtime''s registered models in order, each with the provider that serves it when no credentials are given.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
