-- Internal. Where the changes of this transaction stand in the feed (fleet.changes_after) at the earliest.

create or replace function workspace.own_position()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own_position bigint;
begin
  loop
    select (n.era << 45) + pg_current_xact_id()::text::bigint
    into own_position
    from workspace.numbering as n
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;
  return own_position;
end
$$;
comment on function workspace.own_position() is
  'Internal: the lowest position that a change of this transaction can have: that of a workspace''s first change.';
