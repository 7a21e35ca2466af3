create or replace function fleet.load_registry(
  manifest jsonb,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Compiling its queries takes several times as long as running them.
set jit = off
as $$
declare
  problems jsonb;
  problems_total bigint;
  current_revision bigint;
  current_manifest jsonb;
  with_key keyring.data_key;
  unroutable_before uuid[];
  in_use jsonb;
  load fleet.registry_load;
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  elsif load_registry.on_orphan is null or load_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset') then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif load_registry.on_orphan collate "C" <> 'refuse' then
    perform registry.invalid_argument('on_orphan', 'can only be refuse in this release');
  elsif load_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock: the manifest is judged by itself, and nobody has to wait for that.
  select
    jsonb_agg(jsonb_build_object('path', found.path, 'problem', found.problem)) filter (where found.place <= 100),
    count(*)
  into problems, problems_total
  from registry.manifest_problems(load_registry.manifest) with ordinality as found (path, problem, place);
  if problems_total > 0 then
    raise exception using
      errcode = 'PT422',
      message = format('The manifest has %s problem(s).', problems_total),
      detail = jsonb_build_object('code', 'REGISTRY_INVALID', 'problems', problems, 'problems_total', problems_total),
      hint = 'Mend them all and load again. Nothing was changed.';
  end if;

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;
  with_key := keyring.active_key();

  select s.revision, coalesce(r.manifest, '{}')
  into current_revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;
  load.revision := current_revision;
  load.loaded := false;
  load.orphans := '[]';
  select d.added, d.removed, d.changed
  into load.added, load.removed, load.changed
  from registry.manifest_difference(current_manifest, load_registry.manifest) as d;
  if load_registry.manifest = current_manifest then
    return load;
  end if;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from registry.manifest_runtimes(load_registry.manifest) as kept where kept.runtime = w.runtime
    )
    group by w.runtime
  ) as used;
  if in_use is not null then
    raise exception using
      errcode = 'PT409',
      message = 'The manifest removes a runtime that workspaces use.',
      detail = jsonb_build_object('code', 'RUNTIME_IN_USE', 'runtimes', in_use),
      hint = 'Keep the runtime in the manifest until its workspaces have another. Nothing was changed.';
  end if;

  unroutable_before := array(select before.id from fleet.unroutable_workspaces(with_key) as before (id));
  begin
    perform registry.replace_registry(load_registry.manifest, current_revision + 1, workspace.actor());

    select coalesce(
      jsonb_agg(jsonb_build_object('workspace_id', w.id, 'runtime', w.runtime) order by w.id), '[]'
    )
    into load.orphans
    from fleet.unroutable_workspaces(with_key) as after (id)
    join workspace.workspaces as w on w.id = after.id
    left join unnest(unroutable_before) as before (id) on before.id = after.id
    where before.id is null;

    if load_registry.dry_run then
      raise exception using errcode = 'RRDRY', message = 'Dry run: taken back.';
    end if;
  exception
    when sqlstate 'RRDRY' then
      return load;
  end;

  if load.orphans <> '[]' then
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', jsonb_array_length(load.orphans)),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', jsonb_path_query_array(load.orphans, '$[0 to 49]'),
        'orphans_total', jsonb_array_length(load.orphans)
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;
  load.revision := current_revision + 1;
  load.loaded := true;
  return load;
end
$$;
comment on function fleet.load_registry(jsonb, text, boolean) is
  'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
manifest: the whole registry, see sql/registry/manifest.schema.json. The current manifest again is no new revision.
on_orphan: what becomes of workspaces whose model the manifest leaves unroutable. refuse: nothing is loaded. (keep and reset are not in this release.)
dry_run: answer, with the orphans, but change nothing (it takes the same lock).
It waits for all transactions that have decided by the current registry, and new ones wait for it, until the transaction that calls it ends:
give it a transaction of its own, and on a busy server a lock_timeout. At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED.';
