-- Internal. The lowest place in the feed (fleet.changes_after) that a change of this transaction can have.

create or replace function workspace.own_position()
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own bigint;
begin
  -- Not below our own transaction id: readers are given what lies below the oldest transaction still running, and this is
  -- not visible yet.
  select (n.era << 45) + pg_current_xact_id()::text::bigint
  into own
  from workspace.numbering as n
  where n.singleton and n.made_in = n.tableoid and n.made_by = n.xmin;
  if not found then
    perform workspace.begin_era();
    return workspace.own_position();
  end if;
  return own;
end
$$;
comment on function workspace.own_position() is
  'Internal: the lowest position of a change that this transaction makes. It can be higher: never lower than that of the workspace''s change before.';
