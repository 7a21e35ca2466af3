-- Back to a registry without deprecated models and a history without a feed. What was pruned stays away.

-- Functions that are new, or had other arguments or results.
drop function
  fleet.changes_after(text,integer),
  fleet.check_batch(integer),
  fleet.current_cursor(),
  fleet.deprecations(),
  fleet.describe_orphans(fleet.pair[]),
  fleet.feed_end(),
  fleet.parse_cursor(text),
  fleet.prune_changes(timestamp with time zone,integer,text),
  fleet.replace_registry(jsonb,text,boolean,bigint),
  fleet.require_revision(bigint),
  fleet.reset_of(text,text),
  fleet.restore_registry(bigint,text,boolean),
  fleet.revision_manifest(bigint),
  fleet.revisions(),
  fleet.stored_models(text[]),
  registry.manifest_deprecations(jsonb),
  registry.manifest_facts(jsonb),
  registry.manifest_side(text,jsonb,jsonb),
  registry.manifest_time(text),
  registry.replace_registry(jsonb),
  workspace.begin_era(),
  workspace.next_position(uuid,bigint);

drop index workspace.changes_position_idx;
drop table workspace.numbering;
drop table fleet.retention;
alter type workspace.decision drop attribute model_sunset_at;
alter type workspace.decision drop attribute model_deprecated;
alter type workspace.state drop attribute model_sunset_at;
alter type workspace.state drop attribute model_deprecated;
alter type workspace.change drop attribute model_sunset_at;
alter type workspace.change drop attribute model_deprecated;
alter table workspace.changes drop column position;
alter table workspace.changes drop column model_sunset_at;
alter table workspace.changes drop column model_deprecated;
alter type registry.model_entry drop attribute successor;
alter type registry.model_entry drop attribute sunset_at;
alter type registry.model_entry drop attribute deprecated_at;
alter type registry.routing drop attribute sunset_at;
alter type registry.routing drop attribute deprecated;
alter table registry.models drop column successor;
alter table registry.models drop column sunset_at;
alter table registry.models drop column deprecated_at;
alter table registry.revisions drop column restored_from;
drop type fleet.revision;
drop type fleet.deprecation;
drop type fleet.stored_model;
drop type fleet.pair;
drop type fleet.feed_entry;
drop type fleet.pruning;
drop type fleet.place;
comment on type registry.routing is
  'Internal: whether a runtime can run a model, who serves it and who pays. Provider is null where any model is accepted and no arm claims it.';
comment on table workspace.changes is
  'Every write to a workspace, in order; nothing is deleted here, and only keyring.reseal rewrites sealed bytes. It outlives its workspace.';
comment on type workspace.change is
  'What a write did to a workspace (or, from a preview, would do).
workspace_id: the workspace. version: its version after this. changed: whether anything changed.
previous_runtime, runtime, previous_model, model: the pair before and after; previous_model is null too if it was unreadable.
model_source: why it is this model: requested (the caller asked for it), kept (routable as it was), restored (the last one on this
runtime), equivalent (the same model under this runtime''s id), default (the runtime''s) or none (there is none).
model_was_reset: true for restored, equivalent and default: an orphaned model was replaced.
provider, billed_to: who serves the model and who pays. billing_changed: it is known who pays and who paid before, and they are not the same.
needs_restart: the running agent does not have this pair yet.';
comment on type workspace.state is
  'A workspace as it is. model_registered: whether its model is routable on its runtime; null without a model.';
comment on type fleet.registry_load is
  'What loading a manifest did, or would do.
revision: the registry''s revision now. loaded: whether the manifest was loaded.
added, removed, changed: arrays of the providers, runtimes, arms, models and equivalents concerned, each an object with its kind and names,
a changed one with what differs before (from) and after (to).
orphans: the workspaces whose model this manifest leaves unroutable, an array of objects with workspace_id and runtime.';

create or replace function registry.route(runtime text, model text, auth_env text[])
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Plans are cached while the registry is small, and have to stay good when it is large.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  routing registry.routing;
begin
  -- An exact id. Of several arms that list it, the only one that the credentials open wins, else the first.
  if route.auth_env = '{}' then
    select true, m.provider, p.billed_to
    into routing.routable, routing.provider, routing.billed_to
    from registry.models as m
    join registry.providers as p on p.name = m.provider
    where m.runtime = route.runtime and m.model = route.model
    order by m.arm_position
    limit 1;
  else
    select true, candidate.provider, candidate.billed_to
    into routing.routable, routing.provider, routing.billed_to
    from (
      select
        m.provider,
        p.billed_to,
        m.arm_position,
        p.auth_env && route.auth_env as is_open,
        count(*) filter (where p.auth_env && route.auth_env) over () as open_arms
      from registry.models as m
      join registry.providers as p on p.name = m.provider
      where m.runtime = route.runtime and m.model = route.model
    ) as candidate
    order by (candidate.is_open and candidate.open_arms = 1) desc, candidate.arm_position
    limit 1;
  end if;
  if found then
    return routing;
  end if;

  -- A prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind only the greatest
  -- pattern that is not above the id can claim it: one step down an index, however many there are.
  select true, p.name, p.billed_to
  into routing.routable, routing.provider, routing.billed_to
  from (values (false, route.model collate "C"), (true, lower(route.model collate "C"))) as asked (case_folded, id)
  cross join lateral (
    select c.pattern, c.is_prefix, c.provider
    from registry.claims as c
    where c.runtime = route.runtime and c.case_folded = asked.case_folded and c.pattern <= asked.id
    order by c.pattern desc
    limit 1
  ) as nearest
  join registry.providers as p on p.name = nearest.provider
  where case when nearest.is_prefix then starts_with(asked.id, nearest.pattern) else asked.id = nearest.pattern end;
  if found then
    return routing;
  end if;

  select r.model_policy = 'any' and route.model is not null
  into routing.routable
  from registry.runtimes as r
  where r.name = route.runtime;
  routing.routable := coalesce(routing.routable, false);
  routing.provider := null;
  routing.billed_to := null;
  return routing;
end
$$;
comment on function registry.route(text, text, text[]) is
  'Internal: whether a runtime can run a model, by which provider, and who is billed.';

create or replace function registry.list_models(runtime text)
returns setof registry.model_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(list_models.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.menu_position, m.model::text, m.provider::text, p.billed_to, m.model = r.default_model
    from registry.models as m
    join registry.providers as p on p.name = m.provider
    join registry.runtimes as r on r.name = m.runtime
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;
comment on function registry.list_models(text) is
  'A runtime''s registered models in order, each with the provider that serves it when no credentials are given.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';

create or replace function registry.manifest_problems(manifest jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Shapes.
  return query
    select * from registry.shape_problems(
      '',
      manifest_problems.manifest,
      '{"schema_version": "number", "providers": "array", "runtimes": "array"}',
      '{"equivalents": "array"}'
    );
  if jsonb_typeof(manifest_problems.manifest) is distinct from 'object' then
    return;
  end if;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('providers[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"billed_to": "string", "auth_env": "array", "model_prefixes": "array", "model_aliases": "array",
        "case_sensitive": "boolean"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"default_model": "string", "model_policy": "string", "arms": "array"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s].arms[%s]', r.runtime_index, e.place - 1),
      e.item,
      '{"provider": "string"}',
      '{"models": "array"}'
    ) as problem;
  return query
    select format('equivalents[%s]', e.place - 1), 'must be an array'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
      with ordinality as e (item, place)
    where jsonb_typeof(e.item) <> 'array';

  -- Values of a fixed set.
  return query
    select 'schema_version', 'must be 1, the only version this release reads'
    where jsonb_typeof(manifest_problems.manifest -> 'schema_version') = 'number'
      and manifest_problems.manifest -> 'schema_version' <> '1';
  return query
    select format('providers[%s].billed_to', p.provider_index), 'must be platform or tenant'
    from registry.manifest_providers(manifest_problems.manifest) as p
    where p.billed_to not in ('platform', 'tenant');
  return query
    select format('runtimes[%s].model_policy', r.runtime_index), 'must be registered or any'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.model_policy not in ('registered', 'any');

  -- Ids and names.
  return query
    select id.path, registry.id_problem(id.value)
    from (
      select format('providers[%s].%s', p.place - 1, named.key), named.value
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
        with ordinality as p (item, place)
      cross join lateral (
        select 'name', p.item -> 'name'
        where jsonb_typeof(p.item -> 'name') = 'string'
        union all
        select format('%s[%s]', list.key, e.place - 1), e.item
        from (values ('auth_env'), ('model_prefixes'), ('model_aliases')) as list (key)
        cross join lateral jsonb_array_elements(registry.manifest_array(p.item -> list.key))
          with ordinality as e (item, place)
      ) as named (key, value)
      union all
      select format('runtimes[%s].%s', r.place - 1, named.key), r.item -> named.key
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
        with ordinality as r (item, place)
      cross join (values ('name'), ('default_model')) as named (key)
      where jsonb_typeof(r.item -> named.key) = 'string'
      union all
      select format('runtimes[%s].arms[%s].provider', a.runtime_index, a.arm_index), to_jsonb(a.provider)
      from registry.manifest_arms(manifest_problems.manifest) as a
      where a.provider is not null
      union all
      select format('runtimes[%s].arms[%s].models[%s]', a.runtime_index, a.arm_index, e.place - 1), e.item
      from registry.manifest_arms(manifest_problems.manifest) as a
      cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
      union all
      select format('equivalents[%s][%s]', g.place - 1, e.place - 1), e.item
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
        with ordinality as g (item, place)
      cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
    ) as id (path, value)
    where registry.id_problem(id.value) is not null;

  -- Names that stand twice, or for nothing.
  return query
    select format('providers[%s].name', named.provider_index), 'is the name of an earlier provider'
    from (
      select
        p.provider_index,
        row_number() over (partition by p.provider order by p.provider_index) as occurrence
      from registry.manifest_providers(manifest_problems.manifest) as p
      where p.provider is not null
    ) as named
    where named.occurrence > 1;
  return query
    select format('runtimes[%s].name', named.runtime_index), 'is the name of an earlier runtime'
    from (
      select
        r.runtime_index,
        row_number() over (partition by r.runtime order by r.runtime_index) as occurrence
      from registry.manifest_runtimes(manifest_problems.manifest) as r
      where r.runtime is not null
    ) as named
    where named.occurrence > 1;
  return query
    select
      format('runtimes[%s].arms[%s].provider', arm.runtime_index, arm.arm_index),
      case when arm.is_known then 'is the provider of an earlier arm' else 'is not the name of a provider' end
    from (
      select
        a.runtime_index,
        a.arm_index,
        known.provider is not null as is_known,
        row_number() over (partition by a.runtime_index, a.provider order by a.arm_index) as occurrence
      from registry.manifest_arms(manifest_problems.manifest) as a
      left join (
        select distinct p.provider from registry.manifest_providers(manifest_problems.manifest) as p
      ) as known on known.provider = a.provider
      where a.provider is not null
    ) as arm
    where not arm.is_known or arm.occurrence > 1;
  return query
    select format('runtimes[%s].default_model', r.runtime_index), 'is not on the menu of this runtime'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.default_model is not null
      and not exists (
        select
        from registry.manifest_models(manifest_problems.manifest) as m
        where m.runtime_index = r.runtime_index and m.model = r.default_model
      );
  return query
    select
      format('equivalents[%s][%s]', equivalent.group_index, equivalent.model_index),
      case when equivalent.is_known then 'stands in the equivalents before' else 'is not on the menu of any runtime' end
    from (
      select
        e.group_index,
        e.model_index,
        known.model is not null as is_known,
        row_number() over (partition by e.model order by e.group_index, e.model_index) as occurrence
      from registry.manifest_equivalents(manifest_problems.manifest) as e
      left join (
        select distinct m.model from registry.manifest_models(manifest_problems.manifest) as m
      ) as known on known.model = e.model
    ) as equivalent
    where not equivalent.is_known or equivalent.occurrence > 1;

  -- Two providers of one runtime that could claim the same id. A prefix overlaps whatever begins with it, an alias only
  -- its equal. Every pattern's beginnings are looked up among the patterns, so the work grows with their number, not with
  -- its square; what is blank or too long is reported above.
  return query
    with claim as materialized (
      select c.provider, c.path, c.pattern, lower(c.pattern collate "C") as folded, c.is_prefix, c.case_sensitive
      from registry.manifest_claims(manifest_problems.manifest) as c
      where octet_length(c.pattern) between 1 and 255
    ),
    beginning as materialized (
      select
        c.provider, c.path, c.pattern, c.folded, c.is_prefix, c.case_sensitive,
        left(c.folded, known.length) as start
      from claim as c
      join (select distinct length(k.folded) as length from claim as k) as known on known.length <= length(c.folded)
    )
    select distinct
      longer.path,
      format('could claim the same id as %s, for runtimes[%s]', shorter.path, arm.runtime_index)
    from beginning as longer
    join claim as shorter on shorter.folded = longer.start and shorter.provider <> longer.provider
    join registry.manifest_arms(manifest_problems.manifest) as arm on arm.provider = longer.provider
    join registry.manifest_arms(manifest_problems.manifest) as other
      on other.provider = shorter.provider and other.runtime_index = arm.runtime_index
    where case
        when shorter.is_prefix then
          -- An alias that equals a prefix meets it here once; equal prefixes meet twice, and one report is enough.
          shorter.folded <> longer.folded or not longer.is_prefix or other.arm_index < arm.arm_index
        else
          shorter.folded = longer.folded and not longer.is_prefix and other.arm_index < arm.arm_index
      end
      -- Where case counts on both sides, it must be the same.
      and (not (shorter.case_sensitive and longer.case_sensitive) or starts_with(longer.pattern, shorter.pattern))
    order by 1, 2;
end
$$;
comment on function registry.manifest_problems(jsonb) is
  'Internal: every problem of a manifest with the path it is found at; none if it can be loaded.';

create or replace function registry.manifest_facts(manifest jsonb)
returns table (
  fact jsonb,
  says jsonb
)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select
    jsonb_build_object('kind', 'provider', 'provider', p.provider),
    jsonb_build_object(
      'billed_to', p.billed_to,
      'auth_env', p.auth_env,
      'model_prefixes', p.model_prefixes,
      'model_aliases', p.model_aliases,
      'case_sensitive', p.case_sensitive
    )
  from registry.manifest_providers(manifest_facts.manifest) as p
  union all
  select
    jsonb_build_object('kind', 'runtime', 'runtime', r.runtime),
    jsonb_build_object(
      'default_model', coalesce(r.default_model, first.model),
      'model_policy', r.model_policy,
      'arms', jsonb_path_query_array(r.arms, '$[*].provider')
    )
  from registry.manifest_runtimes(manifest_facts.manifest) as r
  left join (
    select distinct on (a.runtime) a.runtime, a.models ->> 0 as model
    from registry.manifest_arms(manifest_facts.manifest) as a
    where a.models <> '[]'
    order by a.runtime, a.arm_index
  ) as first on first.runtime = r.runtime
  union all
  select
    jsonb_build_object('kind', 'arm', 'runtime', a.runtime, 'provider', a.provider),
    jsonb_build_object('models', a.models)
  from registry.manifest_arms(manifest_facts.manifest) as a
  union all
  select distinct
    jsonb_build_object('kind', 'model', 'runtime', m.runtime, 'provider', m.provider, 'model', m.model), '{}'::jsonb
  from registry.manifest_models(manifest_facts.manifest) as m
  union all
  select distinct jsonb_build_object('kind', 'equivalent', 'models', g.item), '{}'::jsonb
  from jsonb_array_elements(registry.manifest_array(manifest_facts.manifest -> 'equivalents')) as g (item)
$$;
comment on function registry.manifest_facts(jsonb) is
  'Internal: the providers, runtimes, arms, models and equivalents of a valid manifest, and what it says of each.';

create or replace function registry.manifest_difference(
  before jsonb,
  after jsonb,
  out added jsonb,
  out removed jsonb,
  out changed jsonb
)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select
    coalesce(jsonb_agg(new.fact order by new.fact) filter (where old.fact is null), '[]'),
    coalesce(jsonb_agg(old.fact order by old.fact) filter (where new.fact is null), '[]'),
    coalesce(
      jsonb_agg(
        new.fact || jsonb_build_object('from', difference.before, 'to', difference.after) order by new.fact
      )
        filter (where old.says <> new.says),
      '[]'
    )
  from registry.manifest_facts(manifest_difference.before) as old
  full join registry.manifest_facts(manifest_difference.after) as new on new.fact = old.fact
  left join lateral (
    select jsonb_object_agg(o.key, o.value) as before, jsonb_object_agg(n.key, n.value) as after
    from jsonb_each(old.says) as o
    join jsonb_each(new.says) as n on n.key = o.key and n.value <> o.value
  ) as difference on true
$$;
comment on function registry.manifest_difference(jsonb, jsonb) is
  'Internal: what a manifest adds to another, removes from it and says otherwise.';

create or replace function registry.replace_registry(manifest jsonb, revision bigint, loaded_by text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  loaded_at constant timestamptz := clock_timestamp();
begin
  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  update registry.state as s set revision = replace_registry.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by)
  values (replace_registry.revision, replace_registry.manifest, loaded_at, replace_registry.loaded_by);

  delete from registry.equivalents as e;
  delete from registry.claims as c;
  delete from registry.models as m;
  delete from registry.arms as a;
  delete from registry.providers as p;

  insert into registry.providers (name, position, billed_to, auth_env, case_sensitive)
  select p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive
  from registry.manifest_providers(replace_registry.manifest) as p;

  insert into registry.arms (runtime, position, provider)
  select a.runtime, a.arm_index + 1, a.provider
  from registry.manifest_arms(replace_registry.manifest) as a;

  insert into registry.models (runtime, model, arm_position, provider, menu_position)
  select
    listed.runtime,
    listed.model,
    listed.arm_index + 1,
    listed.provider,
    case when listed.occurrence = 1 then
      row_number() over (
        partition by listed.runtime, listed.occurrence = 1 order by listed.arm_index, listed.model_index
      )
    end
  from (
    select
      m.runtime,
      m.model,
      m.arm_index,
      m.model_index,
      m.provider,
      row_number() over (partition by m.runtime, m.model order by m.arm_index, m.model_index) as occurrence,
      row_number() over (partition by m.runtime, m.model, m.arm_index order by m.model_index) as occurrence_on_arm
    from registry.manifest_models(replace_registry.manifest) as m
  ) as listed
  where listed.occurrence_on_arm = 1;

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as r
  where not exists (
    select
    from registry.manifest_runtimes(replace_registry.manifest) as kept
    where kept.runtime = r.name
  );
  insert into registry.runtimes as r (name, position, model_policy, default_model, menu_size)
  select
    named.runtime,
    named.runtime_index + 1,
    named.model_policy,
    coalesce(named.default_model, first.model),
    coalesce(menu.size, 0)
  from registry.manifest_runtimes(replace_registry.manifest) as named
  left join registry.models as first on first.runtime = named.runtime and first.menu_position = 1
  left join (
    select m.runtime, count(m.menu_position) as size from registry.models as m group by m.runtime
  ) as menu on menu.runtime = named.runtime
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size;

  -- Without what a prefix of the same provider covers, so that one step down the index is enough (registry.route).
  with claim as materialized (
    select distinct c.provider, c.pattern, c.is_prefix, c.case_sensitive
    from registry.manifest_claims(replace_registry.manifest) as c
  ),
  beginning as materialized (
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive, left(c.pattern, known.length) as start
    from claim as c
    join (
      select distinct length(k.pattern) as length from claim as k where k.is_prefix
    ) as known on known.length <= length(c.pattern)
  ),
  covered as (
    select longer.provider, longer.pattern, longer.is_prefix, longer.case_sensitive
    from beginning as longer
    join claim as shorter on shorter.provider = longer.provider and shorter.pattern = longer.start
    where shorter.is_prefix and (shorter.pattern <> longer.pattern or not longer.is_prefix)
  ),
  uncovered as (
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive from claim as c
    except
    select c.provider, c.pattern, c.is_prefix, c.case_sensitive from covered as c
  )
  insert into registry.claims (runtime, case_folded, pattern, is_prefix, provider)
  select a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider
  from uncovered as u
  join registry.arms as a on a.provider = u.provider;

  insert into registry.equivalents (model, group_number)
  select e.model, e.group_index + 1
  from registry.manifest_equivalents(replace_registry.manifest) as e;
end
$$;
comment on function registry.replace_registry(jsonb, bigint, text) is
  'Internal: makes a manifest the registry, as a new revision.';

create or replace function workspace.change_of(recorded workspace.changes, previous_model text, model text)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  answer workspace.change;
begin
  answer.workspace_id := recorded.workspace_id;
  answer.version := recorded.version;
  answer.changed := recorded.changed;
  answer.previous_runtime := recorded.previous_runtime;
  answer.runtime := recorded.runtime;
  answer.previous_model := change_of.previous_model;
  answer.model := change_of.model;
  answer.model_source := recorded.model_source;
  answer.model_was_reset := recorded.model_source in ('restored', 'equivalent', 'default');
  answer.provider := recorded.provider;
  answer.billed_to := recorded.billed_to;
  answer.billing_changed := recorded.billing_changed;
  answer.needs_restart := recorded.changed and recorded.action not in ('create_workspace', 'delete_workspace');
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';

create or replace function workspace.choose_model(
  with_key keyring.data_key,
  current workspace.snapshot,
  runtime text,
  model text,
  restore boolean
)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  decided workspace.decision;
  routing registry.routing;
  last keyring.sealed_value;
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    routing := registry.route(choose_model.runtime, choose_model.model, current.credentials);
    if not routing.routable then
      perform registry.refuse_model(choose_model.runtime);
    end if;
    decided.model := choose_model.model;
    decided.model_source := 'requested';
    decided.provider := routing.provider;
    decided.billed_to := routing.billed_to;
    return decided;
  end if;

  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;

  if current.model is null then
    decided.model_source := 'none';
    return decided;
  end if;

  decided.model := current.model;
  decided.model_source := 'kept';
  routing := registry.route(choose_model.runtime, decided.model, current.credentials);

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not routing.routable and choose_model.restore then
    select c.sealed, c.key_id
    into last
    from workspace.changes as c
    where c.workspace_id = current.workspace_id
      and c.runtime = choose_model.runtime
      and c.sealed is not null
    order by c.version desc
    limit 1;
    decided.model := keyring.unseal(with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
    decided.model_source := 'restored';
    routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;

  if not routing.routable then
    decided.model := (
      select m.model
      from registry.equivalents as known
      join registry.equivalents as equivalent on equivalent.group_number = known.group_number
      join registry.models as m on m.runtime = choose_model.runtime and m.model = equivalent.model
      where known.model = current.model and m.menu_position is not null
      order by m.menu_position
      limit 1
    );
    decided.model_source := 'equivalent';
    if decided.model is null then
      decided.model := (select r.default_model from registry.runtimes as r where r.name = choose_model.runtime);
      decided.model_source := 'default';
    end if;
    if decided.model is null then
      raise exception using
        errcode = 'PT422',
        message = format(
          'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
        ),
        detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
          || registry.valid_models(choose_model.runtime),
        hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
    end if;
    routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;

  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  return decided;
end
$$;
comment on function workspace.choose_model(keyring.data_key, workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why. Raises MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

create or replace function workspace.describe_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text
)
returns workspace.changes
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  described workspace.changes;
  previous registry.routing;
begin
  described.workspace_id := current.workspace_id;
  described.version := current.version;
  described.action := describe_change.action;
  described.changed := decided.runtime is distinct from current.runtime
    or decided.model is distinct from current.model
    or current.model_is_unreadable;
  described.previous_runtime := current.runtime;
  described.runtime := decided.runtime;
  described.model_source := decided.model_source;
  described.provider := decided.provider;
  described.billed_to := decided.billed_to;
  described.billing_changed := false;
  if described.changed and current.model is not null then
    previous := registry.route(current.runtime, current.model, current.credentials);
    described.billing_changed := coalesce(previous.billed_to <> decided.billed_to, false);
  end if;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet (its version is the current one).';

create or replace function workspace.record_change(
  described workspace.changes,
  current workspace.snapshot,
  stored keyring.sealed_value,
  restore boolean,
  request_id text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  actor constant text := workspace.actor();
  changed_at constant timestamptz := clock_timestamp();
  txid constant xid8 := pg_current_xact_id();
begin
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, secret
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid, described.secret
  );
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes.';

create or replace function workspace.get_workspace(ws uuid)
returns workspace.state
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot: the pair, its routing and its version belong together.
  current constant workspace.snapshot := workspace.read_workspace(keyring.active_key(), get_workspace.ws);
  routing registry.routing;
  state workspace.state;
begin
  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;
  if current.model is not null then
    routing := registry.route(current.runtime, current.model, current.credentials);
  end if;

  select
    w.id, w.name, w.runtime, current.model, routing.routable, routing.provider, routing.billed_to,
    w.version, w.created_at, w.updated_at
  into state
  from workspace.workspaces as w
  where w.id = current.workspace_id;
  return state;
end
$$;
comment on function workspace.get_workspace(uuid) is
  'A workspace as it is: runtime, model, provider, billing and version, all of one moment.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE.';

create or replace function fleet.unroutable_workspaces(with_key keyring.data_key)
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored record;
  model text;
  pair text;
  routable jsonb := '{}';
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql). A fleet has many workspaces and few
  -- distinct pairs: each pair is routed once.
  for stored in
    select w.id, w.runtime, s.key, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  loop
    model := keyring.unseal(with_key, stored.id, stored.key, stored.sealed, stored.key_id);
    pair := stored.runtime || E'\n' || model;
    if not routable ? pair then
      routable := routable
        || jsonb_build_object(pair, (registry.route(stored.runtime, model, '{}')).routable);
    end if;
    if model is null or not (routable -> pair)::boolean then
      return next stored.id;
    end if;
  end loop;
end
$$;
comment on function fleet.unroutable_workspaces(keyring.data_key) is
  'Internal: the workspaces whose model is not routable on their runtime, or cannot be read.';

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

-- Who may call what.
revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.snapshot, workspace.decision, workspace.key_use
from public;

grant usage on schema registry, workspace
  to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;
grant usage on schema fleet, keyring
  to runtime_registry_admin;

-- Readers, and with them everybody.
grant execute on function
  registry.resolve(text, text, text[]),
  registry.default_model(text),
  registry.menu(text),
  registry.list_runtimes(),
  registry.list_models(text),
  workspace.get_workspace(uuid),
  workspace.preview_runtime_change(uuid, text, text, boolean),
  workspace.history(uuid),
  workspace.list_secrets(uuid)
to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- Operators, and with them admins.
grant execute on function
  workspace.create_workspace(text, text, text, uuid),
  workspace.change_runtime(uuid, text, text, boolean, bigint, text),
  workspace.set_model(uuid, text, bigint, text),
  workspace.clear_model(uuid, bigint, text),
  workspace.delete_workspace(uuid, bigint),
  workspace.set_secret(uuid, text, text, bigint),
  workspace.get_secret(uuid, text),
  workspace.delete_secret(uuid, text, bigint)
to runtime_registry_operator, runtime_registry_admin;

-- Admins.
grant execute on function
  fleet.load_registry(jsonb, text, boolean),
  keyring.init(),
  keyring.rotate(),
  keyring.rewrap(),
  keyring.reseal(uuid, integer),
  keyring.retire(integer),
  keyring.status(boolean)
to runtime_registry_admin;
