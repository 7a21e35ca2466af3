-- Internal.

create or replace function fleet.check_batch(batch integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if check_batch.batch is null then
    perform registry.invalid_argument('batch', 'is null');
  end if;
  if check_batch.batch not between 1 and 10000 then
    perform registry.invalid_argument('batch', 'is not between 1 and 10000');
  end if;
end
$$;
comment on function fleet.check_batch(integer) is 'Internal: raises INVALID_ARGUMENT unless so many rows can be done at once.';
