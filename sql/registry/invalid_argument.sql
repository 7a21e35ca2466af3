-- Internal. The one place that raises INVALID_ARGUMENT. It names the argument and never repeats its value.

create or replace function registry.invalid_argument(argument text, problem text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT400',
    message = format('The argument %s %s.', invalid_argument.argument, invalid_argument.problem),
    detail = jsonb_build_object(
      'code', 'INVALID_ARGUMENT', 'argument', invalid_argument.argument, 'problem', invalid_argument.problem
    ),
    hint = 'Correct the argument and call again. Nothing was changed.';
end
$$;
comment on function registry.invalid_argument(text, text) is 'Internal: raises INVALID_ARGUMENT.';
