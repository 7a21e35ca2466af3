create or replace function registry.resolve(runtime text, model text, auth_env text[] default '{}')
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(resolve.runtime, 'runtime');
  asked_model constant text collate "C" := registry.clean_text(resolve.model, 'model');
  credentials constant text[] collate "C" := coalesce(resolve.auth_env, '{}');
  routing registry.routing;
begin
  perform registry.require_runtime(asked_runtime);
  routing := registry.route(asked_runtime, asked_model, credentials);
  return routing.provider;
end
$$;
comment on function registry.resolve(text, text, text[]) is
  'Tells which provider serves a model on a runtime; null if none does.
Only the runtime''s own arms are asked. An arm that lists the exact id wins; of several, the only one whose auth_env has a
name in common with auth_env (names of the credentials at hand), else the first. With no exact id, the arm whose provider
owns a matching alias or prefix.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
