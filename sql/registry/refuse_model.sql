-- Internal. The model itself is never named: the server log keeps what an error says.

create or replace function registry.refuse_model(runtime text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT422',
    message = format('The model is not registered for the runtime %s.', refuse_model.runtime),
    detail = jsonb_build_object('code', 'MODEL_NOT_REGISTERED', 'runtime', refuse_model.runtime)
      || registry.valid_models(refuse_model.runtime),
    hint = 'Take one of valid_models, or a runtime that has this model.';
end
$$;
comment on function registry.refuse_model(text) is 'Internal: raises MODEL_NOT_REGISTERED with the models that are.';
