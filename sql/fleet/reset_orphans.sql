create or replace function fleet.reset_orphans(
  runtime text default null,
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
  source constant text collate "C" :=
    case when reset_orphans.runtime is not null then registry.clean_text(reset_orphans.runtime, 'runtime') end;
  request constant text collate "C" :=
    case when reset_orphans.request_id is not null then registry.clean_text(reset_orphans.request_id, 'request_id') end;
  ids uuid[];
begin
  perform fleet.begin_batch(reset_orphans.batch, reset_orphans.dry_run);
  if source is not null then
    perform registry.require_runtime(source);
  end if;

  ids := fleet.page_of(reset_orphans.among, reset_orphans.after, reset_orphans.batch);
  if reset_orphans.among is null then
    ids := array(
      select o.workspace_id from fleet.find_orphans(source, reset_orphans.after, reset_orphans.batch) as o
    );
  end if;
  return query
    select m.* from fleet.change_batch(ids, source, null, false, request, reset_orphans.dry_run) as m;
end
$$;
comment on function fleet.reset_orphans(text, text, uuid, integer, uuid[], boolean) is
  'Gives orphaned workspaces a model that is registered, as workspace.change_runtime to the runtime that they have would.
That is an equivalent of theirs, or else the runtime''s default. It does a batch of them, in the order of their ids.
runtime: on this runtime alone; null: on all. request_id: the name of this reset, recorded with every change; repeated, it resets no workspace
a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most. among: these workspaces alone,
a row for each, orphaned or not. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. Workspaces whose model cannot be read, or whose runtime has no
default, are refused and stay as they are.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';
