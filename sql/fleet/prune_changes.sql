create or replace function fleet.prune_changes(before timestamptz, batch integer default 1000, cursor text default null)
returns fleet.pruning
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  place constant fleet.place := fleet.parse_cursor(prune_changes.cursor);
  replayable_since constant timestamptz := clock_timestamp() - interval '7 days';
  feed_end bigint;
  last_examined fleet.place;
  last_pruned fleet.place;
  examined bigint;
  oldest timestamptz;
  pruning fleet.pruning;
begin
  if prune_changes.before is null then
    perform registry.invalid_argument('before', 'is null');
  end if;
  perform fleet.check_batch(prune_changes.batch);

  -- One at a time. Readers do not wait.
  lock table fleet.retention in share row exclusive mode;

  -- What the feed has not given out yet stays.
  feed_end := fleet.feed_end();
  select p.position, p.workspace_id, p.version, count(*) over (), min(p.changed_at) over ()
  into last_examined.position, last_examined.workspace_id, last_examined.version, examined, oldest
  from (
    select c.position, c.workspace_id, c.version, c.changed_at
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit prune_changes.batch
  ) as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;
  if not found then
    return (0, prune_changes.cursor, true)::fleet.pruning;
  end if;

  with old as materialized (
    select c.workspace_id, c.version
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and (c.position, c.workspace_id, c.version)
        <= (last_examined.position, last_examined.workspace_id, last_examined.version)
      and c.changed_at < prune_changes.before
      and (c.request_id is null or c.changed_at < replayable_since)
      -- The first keeps the id taken (create_workspace), the last tells how the workspace came to be as it is.
      and c.version > 1
      and exists (
        select
        from workspace.changes as later
        where later.workspace_id = c.workspace_id and later.version > c.version
      )
      -- What choose_model can restore: the last model on each runtime.
      and not (
        c.sealed is not null
        and exists (select from workspace.workspaces as w where w.id = c.workspace_id)
        and not exists (
          select
          from workspace.changes as later
          where later.workspace_id = c.workspace_id
            and later.version > c.version
            and later.runtime = c.runtime
            and later.sealed is not null
        )
      )
    -- What keyring.reseal holds is left to the next run: to wait for it could be a deadlock.
    for update of c skip locked
  ),
  pruned as (
    delete from workspace.changes as c
    using old as o
    where c.workspace_id = o.workspace_id and c.version = o.version
    returning c.position, c.workspace_id, c.version
  )
  select count(*) over (), p.position, p.workspace_id, p.version
  into pruning.pruned, last_pruned.position, last_pruned.workspace_id, last_pruned.version
  from pruned as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;

  if found then
    insert into fleet.retention as r (prunings, position, workspace_id, version)
    values (1, last_pruned.position, last_pruned.workspace_id, last_pruned.version)
    on conflict (singleton) do update set
      prunings = r.prunings + 1,
      (position, workspace_id, version) = (
        select furthest.position, furthest.workspace_id, furthest.version
        from (
          values (r.position, r.workspace_id, r.version), (excluded.position, excluded.workspace_id, excluded.version)
        ) as furthest (position, workspace_id, version)
        order by furthest.position desc, furthest.workspace_id desc, furthest.version desc
        limit 1
      );
  end if;
  pruning.pruned := coalesce(pruning.pruned, 0);
  pruning.cursor := concat_ws('.', last_examined.position, last_examined.workspace_id, last_examined.version, 0);
  pruning.finished := examined < prune_changes.batch or oldest >= prune_changes.before;
  return pruning;
end
$$;
comment on function fleet.prune_changes(timestamptz, integer, text) is
  'Takes old changes out of the history and the feed, one batch.
Call it, each time in a transaction of its own, with the cursor that it returned until it says finished.
before: changes made before this may go. batch: how many changes to look at. cursor: where the batch begins; null: at the beginning.
Kept all the same: the first and the last change of each workspace, the last with a model on each runtime (that is what restore takes), the
answers to a request_id for 7 days, and what fleet.changes_after has not been able to give yet.
A reader of the feed that has not got as far as what was pruned is told so. Readers and writers do not wait for it.
Errors: INVALID_ARGUMENT.';
