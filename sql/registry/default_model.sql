create or replace function registry.default_model(runtime text)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(default_model.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return (select r.default_model from registry.runtimes as r where r.name = asked_runtime);
end
$$;
comment on function registry.default_model(text) is
  'The model a runtime falls back to; null if its menu is empty.
It is the manifest''s default_model, else the first id of the menu.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
