-- Internal. What load_registry and restore_registry have in common.

create or replace function fleet.replace_registry(
  manifest jsonb,
  on_orphan text,
  dry_run boolean,
  restored_from bigint
)
returns fleet.registry_load
language plpgsql
set search_path = pg_catalog, pg_temp
-- Compiling its queries takes several times as long as running them.
set jit = off
-- A plan of its own would hold the manifest several times.
set plan_cache_mode = force_generic_plan
as $$
declare
  problems jsonb;
  problems_total bigint;
  content registry.content;
  routable_pairs fleet.pair[];
  orphaned_pairs fleet.pair[];
  in_use jsonb;
  first_orphans jsonb;
  orphans_total bigint;
  ids uuid[];
  loaded_at timestamptz;
  load fleet.registry_load;  -- What is to be answered; loaded: the manifest is another.
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock all that takes long: nobody has to wait until the manifest is judged, compared and taken apart.
  select
    jsonb_agg(jsonb_build_object('path', found.path, 'problem', found.problem)) filter (where found.place <= 100),
    count(*)
  into problems, problems_total
  from registry.manifest_problems(replace_registry.manifest) with ordinality as found (path, problem, place);
  if problems_total > 0 then
    raise exception using
      errcode = 'PT422',
      message = format('The manifest has %s problem(s).', problems_total),
      detail = jsonb_build_object('code', 'REGISTRY_INVALID', 'problems', problems, 'problems_total', problems_total),
      hint = 'Mend them all and load again. Nothing was changed.';
  end if;

  load := fleet.compare_registry(replace_registry.manifest);
  if not load.loaded then
    return load;
  end if;
  content := registry.manifest_content(replace_registry.manifest);

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;

  -- Another load came first.
  if not exists (select from registry.state as s where s.revision = load.revision) then
    load := fleet.compare_registry(replace_registry.manifest);
    if not load.loaded then
      return load;
    end if;
  end if;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from unnest(content.runtimes) as kept where kept.name = w.runtime
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

  -- A fleet has many workspaces and few distinct pairs: each pair is judged once.
  routable_pairs := array(
    select row(s.runtime, s.model)::fleet.pair
    from (select distinct s.runtime, s.model from fleet.stored_models() as s where s.model is not null) as s
    where (registry.route(s.runtime, s.model, '{}')).routable
  );
  begin
    perform registry.replace_registry(content);

    orphaned_pairs := array(
      select row(p.runtime, p.model)::fleet.pair
      from unnest(routable_pairs) as p
      where not (registry.route(p.runtime, p.model, '{}')).routable
    );
    if orphaned_pairs <> '{}' then
      load.orphans := fleet.describe_orphans(orphaned_pairs);
    end if;

    if replace_registry.dry_run then
      raise exception using errcode = 'RRDRY', message = 'Dry run: taken back.';
    end if;
  exception
    when sqlstate 'RRDRY' then
      load.loaded := false;
      return load;
  end;

  -- What nothing can be found for is refused with reset, too. Without the models: the server log keeps what an error says.
  if replace_registry.on_orphan <> 'keep' then
    select
      jsonb_agg(o.orphan - array['model', 'reset_model', 'reset_source'] order by o.place) filter (where o.place <= 50),
      count(*)
    into first_orphans, orphans_total
    from (
      select item.orphan, row_number() over (order by item.place) as place
      from jsonb_array_elements(load.orphans) with ordinality as item (orphan, place)
      where replace_registry.on_orphan = 'refuse' or item.orphan ->> 'reset_model' is null
    ) as o;
  end if;
  if orphans_total > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', orphans_total),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', first_orphans,
        'orphans_total', orphans_total
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;

  if load.orphans <> '[]' and replace_registry.on_orphan = 'reset' then
    perform keyring.hold();
    ids := array(
      select w.id
      from workspace.workspaces as w
      join jsonb_array_elements(load.orphans) as o on (o ->> 'workspace_id')::uuid = w.id
      order by w.id
      for no key update of w
    );
    perform from fleet.change_batch(ids, null, null, false, null, false) as m;
  end if;

  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  load.revision := load.revision + 1;
  loaded_at := clock_timestamp();
  update registry.state as s set revision = load.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by, restored_from)
  values (load.revision, replace_registry.manifest, loaded_at, workspace.actor(), replace_registry.restored_from);
  return load;
end
$$;
comment on function fleet.replace_registry(jsonb, text, boolean, bigint) is
  'Internal: makes a valid manifest the registry, as a new revision, and says what that changes and which workspaces it orphans.';
