-- Internal.

create or replace function fleet.page_of(among uuid[], after uuid, batch integer)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select distinct a.id
    from unnest(page_of.among) as a (id)
    where a.id > page_of.after or (page_of.after is null and a.id is not null)
    order by a.id
    limit page_of.batch
  );
end
$$;
comment on function fleet.page_of(uuid[], uuid, integer) is 'Internal: the first of these ids that come after this one, in order, each once.';
