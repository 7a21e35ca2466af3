-- Internal.

create or replace function workspace.secret_name(name text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(secret_name.name, 'name');
begin
  -- What becomes a variable of an agent's environment, or a file: nothing that could pass for another name.
  if translate(called, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./', '') <> '' then
    perform registry.invalid_argument('name', 'may only have ASCII letters, digits and _ - . /');
  end if;

  -- No side door past the registry: agents read MODEL from their environment, some of them whatever its case.
  if upper(called) = 'MODEL' then
    perform registry.invalid_argument('name', 'is MODEL: use set_model, clear_model or get_workspace');
  end if;
  return called;
end
$$;
comment on function workspace.secret_name(text) is
  'Internal: the name of a secret that is not the model, as registry.clean_text leaves it. Raises INVALID_ARGUMENT.';
