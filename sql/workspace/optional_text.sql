-- Internal.

create or replace function workspace.optional_text(value text, argument text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only null means "not given": a blank value is a mistake, never a silent null.
  return case when optional_text.value is not null then registry.clean_text(optional_text.value, optional_text.argument) end;
end
$$;
comment on function workspace.optional_text(text, text) is 'Internal: null, or the value as registry.clean_text leaves it.';
