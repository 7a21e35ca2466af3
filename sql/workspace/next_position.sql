-- Internal. The place in the feed (fleet.changes_after) of the change that makes a workspace this version.

create or replace function workspace.next_position(ws uuid, version bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own_position bigint;
  position_before bigint;
begin
  select
    (n.era << 45) + pg_current_xact_id()::text::bigint,
    (
      select c.position
      from workspace.changes as c
      where c.workspace_id = next_position.ws and c.version = next_position.version - 1
    )
  into own_position, position_before
  from workspace.numbering as n
  where n.singleton and n.made_in = n.tableoid and n.made_by = n.xmin;
  if not found then
    perform workspace.begin_era();
    return workspace.next_position(next_position.ws, next_position.version);
  end if;

  -- Not below our own transaction id: readers are given what lies below the oldest transaction still running, and this is
  -- not visible yet. Not below the change before: its transaction may be the younger one, if it got the workspace first.
  -- (It is over, or our own: the workspace is locked. Equal positions go by version.)
  return greatest(own_position, position_before);
end
$$;
comment on function workspace.next_position(uuid, bigint) is
  'Internal: the position of the change that makes a workspace this version; the workspace is locked, or new.
Both null: the lowest that a change of this transaction can have.';
