create or replace function fleet.move(
  from_runtime text,
  to_runtime text,
  restore boolean default false,
  request_id text default null,
  after uuid default null,
  batch integer default 1000,
  among uuid[] default null,
  dry_run boolean default false
)
returns setof fleet.move_entry
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  source constant text collate "C" := registry.clean_text(move.from_runtime, 'from_runtime');
  target constant text collate "C" := registry.clean_text(move.to_runtime, 'to_runtime');
  request constant text collate "C" :=
    case when move.request_id is not null then registry.clean_text(move.request_id, 'request_id') end;
  ids uuid[];
begin
  if source = target then
    perform registry.invalid_argument('to_runtime', 'is from_runtime: see fleet.reset_orphans');
  elsif move.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;
  perform fleet.begin_batch(move.batch, move.dry_run);
  perform registry.require_runtime(source);
  perform registry.require_runtime(target);

  ids := fleet.page_of(move.among, move.after, move.batch);
  if move.among is null then
    ids := array(
      select w.id
      from workspace.workspaces as w
      where w.runtime = source
        and w.id >= coalesce(move.after, '00000000-0000-0000-0000-000000000000')
        and w.id is distinct from move.after
      order by w.id
      limit move.batch
    );
  end if;
  return query
    select m.* from fleet.change_batch(ids, source, target, move.restore, request, move.dry_run) as m;
end
$$;
comment on function fleet.move(text, text, boolean, text, uuid, integer, uuid[], boolean) is
  'Switches the workspaces of one runtime to another, as workspace.change_runtime would switch each.
It does a batch of them, in the order of their ids.
from_runtime, to_runtime: the runtimes. restore: as in change_runtime. request_id: the name of this move, recorded with every change; repeated,
it moves no workspace a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
among: these workspaces alone, a row for each. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. One that is refused, or that somebody holds (skipped), stops none
of the others. The next batch goes on after the last row; give every batch a transaction of its own, and come back to those skipped with among.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';
