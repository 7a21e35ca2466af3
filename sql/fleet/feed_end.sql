-- Internal.

create or replace function fleet.feed_end()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.lock_workspace). What is below it is seen, or was rolled back.
  return (
    select case
      when n.made_in = n.tableoid and n.made_by = n.xmin
        then (n.era << 45) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      -- Restored from a dump: all that is there came with it, and the next change begins the next era.
      else (n.era + 1) << 45
    end
    from workspace.numbering as n
  );
end
$$;
comment on function fleet.feed_end() is
  'Internal: where the feed ends for now: no change is ever going to appear below this position.';
