-- Internal. What move and reset_orphans end with. They never wait for a workspace: who holds several, as they do, would
-- otherwise keep single callers waiting behind each other.

create or replace function fleet.change_those_free(
  ids uuid[],
  from_runtime text,
  to_runtime text,
  restore boolean,
  request_id text,
  dry_run boolean
)
returns setof fleet.move_entry
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  free uuid[] := change_those_free.ids;
begin
  if not change_those_free.dry_run then
    free := array(
      select w.id
      from workspace.workspaces as w
      where w.id = any (change_those_free.ids)
      order by w.id
      for no key update skip locked
    );
  end if;

  return query
    with done as materialized (
      select m.*
      from fleet.change_batch(
        free, change_those_free.from_runtime, change_those_free.to_runtime, change_those_free.restore,
        change_those_free.request_id, change_those_free.dry_run
      ) as m
    )
    select d.* from done as d
    union all
    select
      other.id, case when w.id is null then 'gone' else 'skipped' end, null, w.version, w.runtime::text, w.runtime::text,
      null, null, null
    from unnest(change_those_free.ids) as other (id)
    left join workspace.workspaces as w
      on w.id = other.id
      and (change_those_free.from_runtime is null or w.runtime = change_those_free.from_runtime)
    where not exists (select from done as d where d.workspace_id = other.id)
    order by 1;
end
$$;
comment on function fleet.change_those_free(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes those of the workspaces that nobody holds and that are still on from_runtime; a row for each workspace.';
