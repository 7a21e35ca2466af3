-- The fleet: what a load changes, deprecated models, and the feed of changes.

-- Functions that go, or whose arguments or results change.
drop function
  registry.manifest_facts(jsonb),
  registry.replace_registry(jsonb,bigint,text);

alter table registry.revisions add column restored_from bigint;
comment on column registry.revisions.restored_from is 'The older revision that fleet.restore_registry loaded again; null: it came as a manifest.';

alter table registry.models add column deprecated_at timestamptz;
alter table registry.models add column sunset_at timestamptz;
alter table registry.models add column successor text collate "C";
comment on column registry.models.deprecated_at is 'From when on it should not be used any more; null: it is not deprecated.';
comment on column registry.models.sunset_at is 'From when on it is not going to work any more; null: not known.';
comment on column registry.models.successor is 'The id to use instead; null: none is named.';

alter type registry.routing add attribute deprecated boolean;
alter type registry.routing add attribute sunset_at timestamptz;
comment on type registry.routing is
  'Internal: whether a runtime can run a model, who serves it, who pays and for how long. Provider is null where any model is accepted and no arm claims it. Deprecated is null where no arm lists the id.';

alter type registry.model_entry add attribute deprecated_at timestamptz;
alter type registry.model_entry add attribute sunset_at timestamptz;
alter type registry.model_entry add attribute successor text;

alter table workspace.changes add column model_deprecated boolean not null default false;
alter table workspace.changes add column model_sunset_at timestamptz;
alter table workspace.changes add column position bigint not null default 0;
create index changes_position_idx on workspace.changes (position, workspace_id, version);
comment on table workspace.changes is
  'Every write to a workspace, in order; only keyring.reseal rewrites sealed bytes and only fleet.prune_changes deletes. It outlives its workspace.';
comment on column workspace.changes.model_deprecated is
  'Whether the registry deprecated the model after, there and then; its end, if that was known, is model_sunset_at.';
comment on column workspace.changes.position is
  'Its place in the feed, see workspace.next_position; 0: made before there was a feed.';

create table workspace.numbering (
  singleton boolean not null default true,
  era bigint not null,
  made_in oid,
  made_by xid,
  constraint numbering_pkey primary key (singleton),
  constraint numbering_has_one_row check (singleton)
);
comment on table workspace.numbering is
  'One row: what the positions of changes begin with, for as long as the database counts its transactions as it does. A dump takes the row along into another cluster, which counts differently; but there it stands in another table and was written by another transaction than it says. Then the next change begins a new era, and positions go on rising.';
comment on column workspace.numbering.era is 'Positions are the era times 2^45, plus a transaction id.';
comment on column workspace.numbering.made_in is 'The table, by its oid, that the row was made in.';
comment on column workspace.numbering.made_by is 'The transaction that made it, or its savepoint: its xmin.';
insert into workspace.numbering (era) values (0);
update workspace.numbering as n set made_in = n.tableoid, made_by = n.xmin;

alter type workspace.change add attribute model_deprecated boolean;
alter type workspace.change add attribute model_sunset_at timestamptz;
comment on type workspace.change is
  'What a write did to a workspace (or, from a preview, would do).
workspace_id: the workspace. version: its version after this. changed: whether anything changed.
previous_runtime, runtime, previous_model, model: the pair before and after; previous_model is null too if it was unreadable.
model_source: why it is this model: requested (the caller asked for it), kept (routable as it was), restored (the last one on this
runtime), equivalent (the same model under this runtime''s id), default (the runtime''s) or none (there is none).
model_was_reset: true for restored, equivalent and default: an orphaned model was replaced.
provider, billed_to: who serves the model and who pays. billing_changed: it is known who pays and who paid before, and they are not the same.
needs_restart: the running agent does not have this pair yet.
model_deprecated: the model is registered, but should not be used any more. model_sunset_at: when it ends, if that is known.';

alter type workspace.state add attribute model_deprecated boolean;
alter type workspace.state add attribute model_sunset_at timestamptz;
comment on type workspace.state is
  'A workspace as it is. model_registered: whether its model is routable on its runtime; null without a model.
model_deprecated: the model is registered, but should not be used any more. model_sunset_at: when it ends, if that is known.';

alter type workspace.decision add attribute model_deprecated boolean;
alter type workspace.decision add attribute model_sunset_at timestamptz;
comment on type fleet.registry_load is
  'What loading a manifest did, or would do.
revision: the registry''s revision now. loaded: whether the manifest was loaded.
added, removed, changed: arrays of objects, each with its kind (provider, runtime, arm, model or equivalent), the names that identify it, and
what the registry said of it before and says after, as far as that differs. In changed there is also the kind order: of a list
(of providers, runtimes, a runtime''s providers or an arm''s models), those that have changed places.
orphans: the workspaces whose model this manifest leaves unroutable, an array of objects with workspace_id, runtime, model, and what a reset
would give them: reset_model and reset_source (equivalent or default; both null where there is nothing).';

create type fleet.revision as (
  revision bigint,
  loaded_at timestamptz,
  loaded_by text,
  restored_from bigint,
  is_current boolean,
  providers bigint,
  runtimes bigint,
  models bigint
);
comment on type fleet.revision is
  'One registry that was loaded.
restored_from: the older revision it is a copy of, if it was loaded with fleet.restore_registry. is_current: it is the one that counts.
providers, runtimes, models: how many it has; a model counts once for each runtime.';

create type fleet.deprecation as (
  workspace_id uuid,
  runtime text,
  model text,
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text
);
comment on type fleet.deprecation is
  'A workspace with a deprecated model.
deprecated_at: from when on the model should not be used; it may lie ahead. sunset_at: from when on it is not going to work; null: not known.
successor: the model to use instead; null: none is named.';

create type fleet.stored_model as (
  workspace_id uuid,
  runtime text,
  model text
);
comment on type fleet.stored_model is 'Internal: a workspace that has a model; null if it cannot be read.';

create type fleet.pair as (
  runtime text,
  model text
);
comment on type fleet.pair is 'Internal: a runtime and a model.';

create type fleet.feed_entry as (
  cursor text,
  workspace_id uuid,
  version bigint,
  action text,
  changed boolean,
  previous_runtime text,
  runtime text,
  previous_model text,
  model text,
  model_source text,
  provider text,
  billed_to text,
  actor text,
  request_id text,
  changed_at timestamptz,
  secret text,
  needs_restart boolean
);
comment on type fleet.feed_entry is
  'One change in the feed. cursor: for fleet.changes_after, to go on behind this change. needs_restart: an agent that ran before does not have
this pair yet. The rest is as in workspace.history.';

create type fleet.pruning as (
  pruned bigint,
  cursor text,
  finished boolean
);
comment on type fleet.pruning is
  'What one batch of fleet.prune_changes did. pruned: how many changes it took away. cursor: where the next batch begins. finished: nothing that is old enough is left behind it.';

create type fleet.place as (
  position bigint,
  workspace_id uuid,
  version bigint,
  prunings bigint
);
comment on type fleet.place is
  'Internal: a cursor, taken apart: a place in the feed, and how often there had been pruning when it was given out.';

create table fleet.retention (
  singleton boolean not null default true,
  prunings bigint not null,
  position bigint not null,
  workspace_id uuid not null,
  version bigint not null,
  constraint retention_pkey primary key (singleton),
  constraint retention_has_one_row check (singleton)
);
comment on table fleet.retention is
  'One row, or none as long as nothing was pruned: how often fleet.prune_changes has taken changes away, and the last of them in the order of the feed. It is how fleet.changes_after knows that a reader has missed some.';

-- Internal. The rule behind resolve(); the model is taken as it is.

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
    select true, m.provider, p.billed_to, m.deprecated_at <= now(), m.sunset_at
    into routing
    from registry.models as m
    join registry.providers as p on p.name = m.provider
    where m.runtime = route.runtime and m.model = route.model
    order by m.arm_position
    limit 1;
  else
    select true, candidate.provider, candidate.billed_to, candidate.deprecated_at <= now(), candidate.sunset_at
    into routing
    from (
      select
        m.provider,
        p.billed_to,
        m.deprecated_at,
        m.sunset_at,
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
    select m.menu_position, m.model::text, m.provider::text, p.billed_to, m.model = r.default_model,
      m.deprecated_at, m.sunset_at, m.successor::text
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

-- Internal. A manifest as rows. These read whatever they are given: what has the wrong type is passed over here and
-- reported by registry.manifest_problems. Indexes count from 0, as in the paths of those reports.

create or replace function registry.manifest_array(value jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(manifest_array.value) = 'array' then manifest_array.value else '[]' end
$$;
comment on function registry.manifest_array(jsonb) is 'Internal: the value if it is an array, else an empty one.';

create or replace function registry.manifest_strings(value jsonb)
returns text[]
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select e.item #>> '{}'
    from jsonb_array_elements(registry.manifest_array(manifest_strings.value)) with ordinality as e (item, place)
    where jsonb_typeof(e.item) = 'string'
    order by e.place
  )
$$;
comment on function registry.manifest_strings(jsonb) is 'Internal: the strings of an array, in order.';

create or replace function registry.manifest_providers(manifest jsonb)
returns table (
  provider_index bigint,
  provider text,
  billed_to text,
  auth_env text[],
  model_prefixes text[],
  model_aliases text[],
  case_sensitive boolean
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'name',
    coalesce(e.item ->> 'billed_to', 'tenant'),
    registry.manifest_strings(e.item -> 'auth_env'),
    registry.manifest_strings(e.item -> 'model_prefixes'),
    registry.manifest_strings(e.item -> 'model_aliases'),
    e.item -> 'case_sensitive' is distinct from 'false'
  from jsonb_array_elements(registry.manifest_array(manifest_providers.manifest -> 'providers'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_providers(jsonb) is 'Internal: the providers of a manifest.';

create or replace function registry.manifest_claims(manifest jsonb)
returns table (
  provider text,
  path text,
  pattern text,
  is_prefix boolean,
  case_sensitive boolean
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    p.provider,
    format('providers[%s].%s[%s]', p.provider_index, list.key, claim.place - 1),
    case when p.case_sensitive then claim.item #>> '{}' else lower((claim.item #>> '{}') collate "C") end,
    list.key = 'model_prefixes',
    p.case_sensitive
  from registry.manifest_providers(manifest_claims.manifest) as p
  cross join (values ('model_prefixes'), ('model_aliases')) as list (key)
  cross join lateral jsonb_array_elements(
    registry.manifest_array(manifest_claims.manifest -> 'providers' -> p.provider_index::integer -> list.key)
  ) with ordinality as claim (item, place)
  where jsonb_typeof(claim.item) = 'string'
$$;
comment on function registry.manifest_claims(jsonb) is
  'Internal: the prefixes and aliases of a manifest''s providers, in lower case where case does not count, and where they stand.';

create or replace function registry.manifest_runtimes(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  default_model text,
  model_policy text,
  arms jsonb
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'name',
    e.item ->> 'default_model',
    coalesce(e.item ->> 'model_policy', 'registered'),
    registry.manifest_array(e.item -> 'arms')
  from jsonb_array_elements(registry.manifest_array(manifest_runtimes.manifest -> 'runtimes'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_runtimes(jsonb) is 'Internal: the runtimes of a manifest.';

create or replace function registry.manifest_arms(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  arm_index bigint,
  provider text,
  models jsonb
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    r.runtime_index,
    r.runtime,
    e.place - 1,
    e.item ->> 'provider',
    registry.manifest_array(e.item -> 'models')
  from registry.manifest_runtimes(manifest_arms.manifest) as r
  cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_arms(jsonb) is 'Internal: the arms of a manifest''s runtimes.';

create or replace function registry.manifest_models(manifest jsonb)
returns table (
  runtime_index bigint,
  runtime text,
  arm_index bigint,
  provider text,
  model_index bigint,
  model text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    a.runtime_index,
    a.runtime,
    a.arm_index,
    a.provider,
    e.place - 1,
    e.item #>> '{}'
  from registry.manifest_arms(manifest_models.manifest) as a
  cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;
comment on function registry.manifest_models(jsonb) is 'Internal: the model ids that a manifest''s arms list.';

create or replace function registry.manifest_equivalents(manifest jsonb)
returns table (
  group_index bigint,
  model_index bigint,
  model text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    g.place - 1,
    e.place - 1,
    e.item #>> '{}'
  from jsonb_array_elements(registry.manifest_array(manifest_equivalents.manifest -> 'equivalents'))
    with ordinality as g (item, place)
  cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;
comment on function registry.manifest_equivalents(jsonb) is 'Internal: the ids of a manifest''s equivalents, by list.';

create or replace function registry.manifest_time(value text)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Read alike in every session: it depends on neither DateStyle nor TimeZone.
  if manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
    return (manifest_time.value || 'T00:00:00Z')::timestamptz;
  elsif manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$' then
    return manifest_time.value::timestamptz;
  end if;
  return null;
exception
  when datetime_field_overflow then
    return null;
end
$$;
comment on function registry.manifest_time(text) is 'Internal: a date, which begins at midnight UTC, or a time in UTC; null if the value is neither.';

create or replace function registry.manifest_deprecations(manifest jsonb)
returns table (
  deprecation_index bigint,
  model text,
  runtimes jsonb,
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text
)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    e.place - 1,
    e.item ->> 'model',
    e.item -> 'runtimes',
    registry.manifest_time(e.item ->> 'deprecated_at'),
    registry.manifest_time(e.item ->> 'sunset_at'),
    e.item ->> 'successor'
  from jsonb_array_elements(registry.manifest_array(manifest_deprecations.manifest -> 'deprecations'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;
comment on function registry.manifest_deprecations(jsonb) is
  'Internal: the deprecations of a manifest; runtimes is null where all that list the model are meant.';

-- Internal. Everything that is wrong with a manifest, in one answer. manifest.schema.json says the same of its shape.

create or replace function registry.shape_problems(path text, value jsonb, required jsonb, optional jsonb)
returns setof registry.manifest_problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(shape_problems.value) is distinct from 'object' then
    return next (shape_problems.path, 'must be an object')::registry.manifest_problem;
    return;
  end if;

  return query
    select
      concat_ws('.', nullif(shape_problems.path, ''), coalesce(known.key, left(given.key, 255))),
      case
        when known.key is null then 'is not a known key'
        when given.key is null then 'is missing'
        when known.type in ('array', 'object') then format('must be an %s', known.type)
        else format('must be a %s', known.type)
      end
    from jsonb_each_text(shape_problems.required || shape_problems.optional) as known (key, type)
    full join jsonb_each(shape_problems.value) as given (key, item) on given.key = known.key
    where known.key is null
      or (given.key is null and shape_problems.required ? known.key)
      or jsonb_typeof(given.item) <> known.type
    order by coalesce(known.key, given.key);
end
$$;
comment on function registry.shape_problems(text, jsonb, jsonb, jsonb) is
  'Internal: unknown and missing keys of an object, and values of another type than the one named for their key.';

create or replace function registry.id_problem(value jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  id constant text := id_problem.value #>> '{}';
begin
  if jsonb_typeof(id_problem.value) <> 'string' then
    return 'must be a string';
  elsif octet_length(id) <= 255 and registry.trim_text(id) not in (id, '') then
    return 'has white space around it';
  end if;
  return registry.text_problem(case when octet_length(id) <= 255 then registry.trim_text(id) else id end);
end
$$;
comment on function registry.id_problem(jsonb) is 'Internal: what is wrong with an id or name of a manifest; null if nothing.';

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
      '{"equivalents": "array", "deprecations": "array"}'
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
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('deprecations[%s]', e.place - 1),
      e.item,
      '{"model": "string", "deprecated_at": "string"}',
      '{"runtimes": "array", "sunset_at": "string", "successor": "string"}'
    ) as problem;

  -- Values of a fixed set, and times.
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
  return query
    select
      format('deprecations[%s].%s', e.place - 1, named.key),
      'must be a date or a time in UTC, such as 2026-03-01 or 2026-03-01T12:00:00Z'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join (values ('deprecated_at'), ('sunset_at')) as named (key)
    where jsonb_typeof(e.item -> named.key) = 'string' and registry.manifest_time(e.item ->> named.key) is null;
  return query
    select format('deprecations[%s].sunset_at', d.deprecation_index), 'must be after deprecated_at'
    from registry.manifest_deprecations(manifest_problems.manifest) as d
    where d.sunset_at <= d.deprecated_at;

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
      union all
      select format('deprecations[%s].%s', d.deprecation_index, named.key), to_jsonb(named.value)
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral (values ('model', d.model), ('successor', d.successor)) as named (key, value)
      where named.value is not null
      union all
      select format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1), e.item
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
    ) as id (path, value)
    -- Most ids are plain ASCII, and that is seen faster than by a call.
    where not (
        jsonb_typeof(id.value) = 'string' and id.value #>> '{}' ~ '^[!-~]+$' and octet_length(id.value #>> '{}') <= 255
      )
      and registry.id_problem(id.value) is not null;

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

  -- What a deprecation names: a model on a menu, once for each runtime, and another model on a menu to succeed it.
  return query
    with listed as materialized (
      select distinct m.runtime, m.model from registry.manifest_models(manifest_problems.manifest) as m
    ),
    deprecated as materialized (
      select * from registry.manifest_deprecations(manifest_problems.manifest)
    ),
    meant as (
      select
        d.deprecation_index,
        e.place,
        format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1) as path,
        d.model,
        e.item #>> '{}' as runtime
      from deprecated as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
      where jsonb_typeof(e.item) = 'string'
      union all
      select d.deprecation_index, 1, format('deprecations[%s].model', d.deprecation_index), d.model, l.runtime
      from deprecated as d
      left join listed as l on l.model = d.model
      where d.runtimes is null
    ),
    judged as (
      select
        m.path,
        case
          when l.model is not null then 'is deprecated by an earlier entry for the same runtime'
          when m.runtime is null then 'is not on the menu of any runtime'
          else 'is not a runtime with this model on its menu'
        end as problem,
        l.model is not null as is_known,
        row_number() over (partition by m.model, m.runtime order by m.deprecation_index, m.place) as occurrence
      from meant as m
      left join listed as l on l.runtime = m.runtime and l.model = m.model
      where m.model is not null
    )
    select distinct j.path, j.problem from judged as j where not j.is_known or j.occurrence > 1
    union all
    select format('deprecations[%s].runtimes', d.deprecation_index), 'must not be empty'
    from deprecated as d
    where d.runtimes = '[]'
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is the deprecated model itself'
    from deprecated as d
    where d.successor = d.model
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is not on the menu of any runtime'
    from deprecated as d
    where d.successor is not null and not exists (select from listed as l where l.model = d.successor)
    order by 1, 2;

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

-- Internal. What a manifest says, one row a thing, so that two manifests can be compared by joining their facts.

create or replace function registry.manifest_facts(manifest jsonb)
returns table (
  fact jsonb,
  says jsonb,
  list text,
  place bigint
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
    ),
    '{"of": "provider"}',
    p.provider_index
  from registry.manifest_providers(manifest_facts.manifest) as p
  union all
  select
    jsonb_build_object('kind', 'runtime', 'runtime', r.runtime),
    jsonb_build_object('default_model', coalesce(r.default_model, first.model), 'model_policy', r.model_policy),
    '{"of": "runtime"}',
    r.runtime_index
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
    '{}',
    jsonb_build_object('of', 'provider', 'runtime', a.runtime)::text,
    a.arm_index
  from registry.manifest_arms(manifest_facts.manifest) as a
  union all
  select
    jsonb_build_object('kind', 'model', 'runtime', m.runtime, 'provider', m.provider, 'model', m.model),
    case when d.model is null then '{}' else
      jsonb_strip_nulls(jsonb_build_object(
        'deprecated_at', to_char(d.deprecated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'sunset_at', to_char(d.sunset_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'successor', d.successor
      ))
    end,
    jsonb_build_object('of', 'model', 'runtime', m.runtime, 'provider', m.provider)::text,
    m.place
  from (
    select listed.runtime, listed.provider, listed.model, min(listed.model_index) as place
    from registry.manifest_models(manifest_facts.manifest) as listed
    group by listed.runtime, listed.provider, listed.model
  ) as m
  left join registry.manifest_deprecations(manifest_facts.manifest) as d
    on d.model = m.model and (d.runtimes is null or d.runtimes ? m.runtime)
  union all
  select distinct
    jsonb_build_object(
      'kind', 'equivalent',
      'models', (select coalesce(jsonb_agg(e.model order by e.model), '[]') from jsonb_array_elements(g.item) as e (model))
    ),
    '{}'::jsonb,
    null,
    null::bigint
  from jsonb_array_elements(registry.manifest_array(manifest_facts.manifest -> 'equivalents')) as g (item)
$$;
comment on function registry.manifest_facts(jsonb) is
  'Internal: the providers, runtimes, arms, models and equivalents of a valid manifest, what it says of each, and where in which list it has it.';

create or replace function registry.manifest_side(side text, says jsonb, other jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when count(*) = 0 then '{}' else
    jsonb_build_object(manifest_side.side, jsonb_object_agg(s.key, s.value)) end
  from jsonb_each(manifest_side.says) as s
  where manifest_side.other -> s.key is distinct from s.value
$$;
comment on function registry.manifest_side(text, jsonb, jsonb) is
  'Internal: what one manifest says of a thing and the other does not, under the key side; an empty object if there is nothing.';

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
-- Sorting by jsonb is slow, hashing is not.
set enable_mergejoin = off
as $$
  with pair as materialized (
    select
      coalesce(new.fact, old.fact) as fact,
      old.says as old_says,
      new.says as new_says,
      coalesce(new.list, old.list) as list,
      old.place as old_place,
      new.place as new_place
    from registry.manifest_facts(manifest_difference.before) as old
    full join registry.manifest_facts(manifest_difference.after) as new on new.fact = old.fact
  ),
  -- The order among those that are in both: what merely makes room for another has not moved.
  kept as (
    select p.list collate "C" as list, p.fact, p.old_place, p.new_place
    from pair as p
    where p.old_says is not null and p.new_says is not null and p.list is not null
  ),
  reordered as (
    select distinct step.list
    from (
      select k.list, k.new_place < lag(k.new_place) over (partition by k.list order by k.old_place) as is_back from kept as k
    ) as step
    where step.is_back
  ),
  ranked as (
    select
      k.list::jsonb as list,
      k.fact -> (k.list::jsonb ->> 'of') as name,
      row_number() over (partition by k.list order by k.old_place) as old_rank,
      row_number() over (partition by k.list order by k.new_place) as new_rank
    from kept as k
    join reordered as r on r.list = k.list
  ),
  entry as (
    select
      p.fact
        || case when p.old_says <> '{}' then registry.manifest_side('before', p.old_says, p.new_says) else '{}' end
        || case when p.new_says <> '{}' then registry.manifest_side('after', p.new_says, p.old_says) else '{}' end
        as item,
      p.old_says is null as is_added,
      p.new_says is null as is_removed
    from pair as p
    where p.old_says is distinct from p.new_says
    union all
    select
      '{"kind": "order"}' || r.list || jsonb_build_object(
        'before', jsonb_agg(r.name order by r.old_rank),
        'after', jsonb_agg(r.name order by r.new_rank)
      ),
      false,
      false
    from ranked as r
    where r.old_rank <> r.new_rank
    group by r.list
  )
  select
    coalesce(jsonb_agg(e.item order by e.item) filter (where e.is_added), '[]'),
    coalesce(jsonb_agg(e.item order by e.item) filter (where e.is_removed), '[]'),
    coalesce(jsonb_agg(e.item order by e.item) filter (where not e.is_added and not e.is_removed), '[]')
  from entry as e
$$;
comment on function registry.manifest_difference(jsonb, jsonb) is
  'Internal: what a manifest adds to another, removes from it, says otherwise and puts in another order.';

-- Internal. The caller holds the exclusive lock on registry.state and has found no problem in the manifest. Rows that
-- stay as they are are not touched: a small change of a large registry is a small write.

create or replace function registry.replace_registry(manifest jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  new_providers registry.providers[];
  new_arms registry.arms[];
  new_models registry.models[];
  new_runtimes registry.runtimes[];
  new_claims registry.claims[];
  new_equivalents registry.equivalents[];
begin
  new_providers := array(
    select row(p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive)::registry.providers
    from registry.manifest_providers(replace_registry.manifest) as p
  );

  new_arms := array(
    select row(a.runtime, a.arm_index + 1, a.provider)::registry.arms
    from registry.manifest_arms(replace_registry.manifest) as a
  );

  new_models := array(
    select row(
      listed.runtime,
      listed.model,
      listed.arm_index + 1,
      listed.provider,
      case when listed.occurrence = 1 then
        row_number() over (
          partition by listed.runtime, listed.occurrence = 1 order by listed.arm_index, listed.model_index
        )
      end,
      d.deprecated_at,
      d.sunset_at,
      d.successor
    )::registry.models
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
    left join registry.manifest_deprecations(replace_registry.manifest) as d
      on d.model = listed.model and (d.runtimes is null or d.runtimes ? listed.runtime)
    where listed.occurrence_on_arm = 1
  );

  new_runtimes := array(
    select row(
      named.runtime,
      named.runtime_index + 1,
      named.model_policy,
      coalesce(named.default_model, menu.first),
      coalesce(menu.size, 0)
    )::registry.runtimes
    from registry.manifest_runtimes(replace_registry.manifest) as named
    left join (
      select m.runtime, min(m.model) filter (where m.menu_position = 1) as first, count(m.menu_position) as size
      from unnest(new_models) as m
      group by m.runtime
    ) as menu on menu.runtime = named.runtime
  );

  -- Without what a prefix of the same provider covers, so that one step down the index is enough (registry.route).
  new_claims := array(
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
    select row(a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider)::registry.claims
    from uncovered as u
    join unnest(new_arms) as a on a.provider = u.provider
  );

  new_equivalents := array(
    select row(e.model, e.group_index + 1)::registry.equivalents
    from registry.manifest_equivalents(replace_registry.manifest) as e
  );

  delete from registry.providers as old where not exists (select from unnest(new_providers) as new where new = old);
  insert into registry.providers
  select new.* from unnest(new_providers) as new where not exists (select from registry.providers as old where old = new);

  delete from registry.arms as old where not exists (select from unnest(new_arms) as new where new = old);
  insert into registry.arms
  select new.* from unnest(new_arms) as new where not exists (select from registry.arms as old where old = new);

  delete from registry.models as old where not exists (select from unnest(new_models) as new where new = old);
  insert into registry.models
  select new.* from unnest(new_models) as new where not exists (select from registry.models as old where old = new);

  delete from registry.claims as old where not exists (select from unnest(new_claims) as new where new = old);
  insert into registry.claims
  select new.* from unnest(new_claims) as new where not exists (select from registry.claims as old where old = new);

  delete from registry.equivalents as old where not exists (select from unnest(new_equivalents) as new where new = old);
  insert into registry.equivalents
  select new.* from unnest(new_equivalents) as new
  where not exists (select from registry.equivalents as old where old = new);

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as old
  where not exists (select from unnest(new_runtimes) as new where new.name = old.name);
  insert into registry.runtimes
  select new.* from unnest(new_runtimes) as new where not exists (select from registry.runtimes as old where old = new)
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size;
end
$$;
comment on function registry.replace_registry(jsonb) is
  'Internal: makes a manifest the registry.';

-- Internal. The one place that turns a row of changes into an answer; the models come unsealed from the caller.

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
  answer.model_deprecated := recorded.model_deprecated;
  answer.model_sunset_at := recorded.model_sunset_at;
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';

-- Internal. The decision itself. Everything that switches a runtime, or previews it, asks here.

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
    decided.model_deprecated := routing.deprecated;
    decided.model_sunset_at := routing.sunset_at;
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
  decided.model_deprecated := routing.deprecated;
  decided.model_sunset_at := routing.sunset_at;
  return decided;
end
$$;
comment on function workspace.choose_model(keyring.data_key, workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why. Raises MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';

-- Internal.

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
  described.model_deprecated := coalesce(decided.model_deprecated, false);
  described.model_sunset_at := decided.model_sunset_at;
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

-- Internal. Only workspace.next_position calls this, before anything is written in this cluster: so no position of the era
-- before is still to come.

create or replace function workspace.begin_era()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever comes second waits for the first and then finds nothing left to do; above READ COMMITTED it gets 40001.
  update workspace.numbering as n
  set era = n.era + 1
  where (n.made_in = n.tableoid and n.made_by = n.xmin) is not true;
  if found then
    update workspace.numbering as n set made_in = n.tableoid, made_by = n.xmin;
  end if;
end
$$;
comment on function workspace.begin_era() is
  'Internal: makes the positions of changes go on above all that came with a dump, whatever transaction ids are here.';

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
  where n.made_in = n.tableoid and n.made_by = n.xmin;
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
  'Internal: the position of the change that makes a workspace this version; the workspace is locked, or new.';

-- Internal.

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
  position constant bigint := workspace.next_position(described.workspace_id, described.version);
begin
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, secret,
    model_deprecated, model_sunset_at, position
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid, described.secret,
    described.model_deprecated, described.model_sunset_at, position
  );

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes, at its place in the feed. With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';

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
    w.version, w.created_at, w.updated_at, coalesce(routing.deprecated, false), routing.sunset_at
  into state
  from workspace.workspaces as w
  where w.id = current.workspace_id;
  return state;
end
$$;
comment on function workspace.get_workspace(uuid) is
  'A workspace as it is: runtime, model, provider, billing and version, all of one moment.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE.';

-- Internal.

create or replace function fleet.stored_models(of_runtimes text[] default null)
returns setof fleet.stored_model
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where stored_models.of_runtimes is null or w.runtime = any (stored_models.of_runtimes)
  loop
    return next (
      stored.id, stored.runtime, keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id)
    )::fleet.stored_model;
  end loop;
end
$$;
comment on function fleet.stored_models(text[]) is
  'Internal: every workspace that has a model, on these runtimes (null: on all), and the model.';

-- Internal.

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
  routable jsonb := '{}'::jsonb;
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

-- Internal.

create or replace function fleet.reset_of(runtime text, model text)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  no_key keyring.data_key;
  orphan workspace.snapshot;
begin
  orphan.runtime := reset_of.runtime;
  orphan.model := reset_of.model;
  orphan.model_is_unreadable := false;
  orphan.credentials := '{}';  -- They decide by whom a model is served, not which it is.
  return workspace.choose_model(no_key, orphan, reset_of.runtime, null, false);
exception
  when sqlstate 'PT422' then
    return null;  -- NO_DEFAULT_MODEL
end
$$;
comment on function fleet.reset_of(text, text) is
  'Internal: what workspace.change_runtime would decide for a workspace with this model on this runtime; null where it would refuse.';

-- Internal.

create or replace function fleet.describe_orphans(pairs fleet.pair[])
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with reset as materialized (
      select p.runtime, p.model, chosen.model as reset_model, chosen.model_source as reset_source
      from unnest(describe_orphans.pairs) as p
      cross join lateral fleet.reset_of(p.runtime, p.model) as chosen
    )
    select coalesce(
      jsonb_agg(
        jsonb_build_object(
          'workspace_id', s.workspace_id, 'runtime', s.runtime, 'model', s.model,
          'reset_model', r.reset_model, 'reset_source', r.reset_source
        )
        order by s.workspace_id
      ),
      '[]'
    )
    from fleet.stored_models(array(select distinct p.runtime from unnest(describe_orphans.pairs) as p)) as s
    join reset as r on r.runtime = s.runtime and r.model = s.model
  );
end
$$;
comment on function fleet.describe_orphans(fleet.pair[]) is
  'Internal: the workspaces that have one of these pairs, and what a reset would give them.';

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
as $$
declare
  problems jsonb;
  problems_total bigint;
  current_revision bigint;
  current_manifest jsonb;
  routable_pairs fleet.pair[];
  orphaned_pairs fleet.pair[];
  in_use jsonb;
  first_orphans jsonb;
  loaded_at timestamptz;
  load fleet.registry_load;
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.on_orphan collate "C" = 'reset' then
    perform registry.invalid_argument('on_orphan', 'can only be refuse or keep in this release');
  elsif replace_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock: the manifest is judged by itself, and nobody has to wait for that.
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

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;

  select s.revision, coalesce(r.manifest, '{}')
  into current_revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;
  load.revision := current_revision;
  load.loaded := false;
  load.added := '[]';
  load.removed := '[]';
  load.changed := '[]';
  load.orphans := '[]';
  if replace_registry.manifest = current_manifest then
    return load;
  end if;
  select d.added, d.removed, d.changed
  into load.added, load.removed, load.changed
  from registry.manifest_difference(current_manifest, replace_registry.manifest) as d;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from registry.manifest_runtimes(replace_registry.manifest) as kept where kept.runtime = w.runtime
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
    perform registry.replace_registry(replace_registry.manifest);

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
      return load;
  end;

  -- on_orphan reset goes here: each of load.orphans gets what is foretold for it (fleet.reset_of).
  if load.orphans <> '[]' and replace_registry.on_orphan = 'refuse' then
    -- Without their models: the server log keeps what an error says.
    first_orphans := (
      select jsonb_agg(o.item - array['model', 'reset_model', 'reset_source'] order by o.place)
      from jsonb_array_elements(load.orphans) with ordinality as o (item, place)
      where o.place <= 50
    );
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', jsonb_array_length(load.orphans)),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', first_orphans,
        'orphans_total', jsonb_array_length(load.orphans)
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;

  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  load.revision := current_revision + 1;
  load.loaded := true;
  loaded_at := clock_timestamp();
  update registry.state as s set revision = load.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by, restored_from)
  values (load.revision, replace_registry.manifest, loaded_at, workspace.actor(), replace_registry.restored_from);
  return load;
end
$$;
comment on function fleet.replace_registry(jsonb, text, boolean, bigint) is
  'Internal: makes a valid manifest the registry, as a new revision, and says what that changes and which workspaces it orphans.';

create or replace function fleet.load_registry(
  manifest jsonb,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  end if;
  return fleet.replace_registry(load_registry.manifest, load_registry.on_orphan, load_registry.dry_run, null);
end
$$;
comment on function fleet.load_registry(jsonb, text, boolean) is
  'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
manifest: the whole registry, see sql/registry/manifest.schema.json. The current manifest again is no new revision.
on_orphan: what becomes of workspaces whose model the manifest leaves unroutable. refuse: nothing is loaded. keep: they keep it, and get
another with the next change_runtime, even to the runtime that they have. (reset is not in this release.)
dry_run: answer, with the orphans, but change nothing (it takes the same lock).
It waits for all transactions that have decided by the current registry, and new ones wait for it, until the transaction that calls it ends:
give it a transaction of its own, and on a busy server a lock_timeout. At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED.';

-- Internal.

create or replace function fleet.require_revision(revision bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  manifest jsonb;
begin
  if require_revision.revision is null then
    perform registry.invalid_argument('revision', 'is null');
  end if;
  select r.manifest into manifest from registry.revisions as r where r.revision = require_revision.revision;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The registry has no revision %s.', require_revision.revision),
      detail = jsonb_build_object('code', 'REVISION_NOT_FOUND', 'revision', require_revision.revision),
      hint = 'Take one that fleet.revisions lists.';
  end if;
  return manifest;
end
$$;
comment on function fleet.require_revision(bigint) is 'Internal: a revision''s manifest. Raises INVALID_ARGUMENT or REVISION_NOT_FOUND.';

create or replace function fleet.restore_registry(
  revision bigint,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.replace_registry(
    fleet.require_revision(restore_registry.revision),
    restore_registry.on_orphan,
    restore_registry.dry_run,
    restore_registry.revision
  );
end
$$;
comment on function fleet.restore_registry(bigint, text, boolean) is
  'Loads an earlier revision''s manifest again, as a new revision; nothing if it is the current one''s.
revision: its number, see fleet.revisions. on_orphan, dry_run, the result and the locks are those of fleet.load_registry.
Errors: REVISION_NOT_FOUND, and those of fleet.load_registry.';

create or replace function fleet.revisions()
returns setof fleet.revision
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    r.revision,
    r.loaded_at,
    r.loaded_by,
    r.restored_from,
    r.revision = s.revision,
    jsonb_array_length(r.manifest -> 'providers'),
    jsonb_array_length(r.manifest -> 'runtimes'),
    (
      select count(distinct (m.runtime, m.model))
      from registry.manifest_models(r.manifest) as m
    )
  from registry.revisions as r
  cross join registry.state as s
  order by r.revision desc
$$;
comment on function fleet.revisions() is 'Every registry that was ever loaded, the newest first.';

create or replace function fleet.revision_manifest(revision bigint default null)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.require_revision(
    coalesce(revision_manifest.revision, (select s.revision from registry.state as s))
  );
end
$$;
comment on function fleet.revision_manifest(bigint) is
  'The manifest of a revision, as it can be loaded again.
revision: its number, see fleet.revisions; null: the current one.
Errors: REVISION_NOT_FOUND, also where nothing was ever loaded.';

create or replace function fleet.deprecations()
returns setof fleet.deprecation
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.workspace_id, s.runtime, s.model, m.deprecated_at, m.sunset_at, m.successor::text
    from fleet.stored_models(
      array(select distinct d.runtime::text from registry.models as d where d.deprecated_at is not null)
    ) as s
    join registry.models as m on m.runtime = s.runtime and m.model = s.model
    where m.menu_position is not null and m.deprecated_at is not null
    order by m.sunset_at, m.deprecated_at, s.runtime, s.model, s.workspace_id;
end
$$;
comment on function fleet.deprecations() is
  'Every workspace whose model the registry deprecates, those first whose model ends first. A model that cannot be read is not among them.';

-- Internal. A cursor is position.workspace.version.prunings; to its holders it is opaque.

create or replace function fleet.parse_cursor(cursor text)
returns fleet.place
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[];
begin
  if parse_cursor.cursor is null then
    return (
      -1, '00000000-0000-0000-0000-000000000000', 0,
      coalesce((select r.prunings from fleet.retention as r), 0)
    )::fleet.place;
  end if;

  -- 18 digits always fit a bigint.
  parts := regexp_match(
    parse_cursor.cursor, '^(\d{1,18})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d{1,18})\.(\d{1,18})$'
  );
  if parts is null then
    perform registry.invalid_argument('cursor', 'is not a cursor that the feed gave out');
  end if;
  return (parts[1], parts[2], parts[3], parts[4])::fleet.place;
end
$$;
comment on function fleet.parse_cursor(text) is
  'Internal: the place that a cursor names; null names the beginning. Raises INVALID_ARGUMENT.';

-- Internal.

create or replace function fleet.check_batch(batch integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if check_batch.batch is null then
    perform registry.invalid_argument('batch', 'is null');
  end if;
  if check_batch.batch not between 1 and 10000 then
    perform registry.invalid_argument('batch', 'is not between 1 and 10000');
  end if;
end
$$;
comment on function fleet.check_batch(integer) is 'Internal: raises INVALID_ARGUMENT unless so many rows can be done at once.';

-- Internal.

create or replace function fleet.feed_end()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.next_position). What is below it is seen, or was rolled back.
  return case
      when n.made_in = n.tableoid and n.made_by = n.xmin
        then (n.era << 45) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      -- Restored from a dump: all that is there came with it, and the next change begins the next era.
      else (n.era + 1) << 45
    end
  from workspace.numbering as n;
end
$$;
comment on function fleet.feed_end() is
  'Internal: where the feed ends for now: no change is ever going to appear below this position.';

create or replace function fleet.current_cursor()
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return concat_ws(
    '.', fleet.feed_end(), '00000000-0000-0000-0000-000000000000', 0,
    coalesce((select r.prunings from fleet.retention as r), 0)
  );
end
$$;
comment on function fleet.current_cursor() is
  'The cursor of now: behind it fleet.changes_after gives every change that is committed from now on.
And, if transactions are still running that are older, some that were committed shortly before. To take over the state of all workspaces and
then keep it up to date: first get this, then read them, then follow.';

create or replace function fleet.changes_after(cursor text default null, batch integer default 1000)
returns setof fleet.feed_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot.
  place constant fleet.place := fleet.parse_cursor(changes_after.cursor);
  feed_end constant bigint := fleet.feed_end();
  with_key constant keyring.data_key := keyring.active_key();
begin
  perform fleet.check_batch(changes_after.batch);
  -- A standby may be behind the server that gave the cursor.
  if place.position > feed_end and not pg_is_in_recovery() then
    perform registry.invalid_argument('cursor', 'is ahead of this database');
  end if;
  if changes_after.cursor is not null and exists (
    select
    from fleet.retention as r
    where r.prunings > place.prunings
      and (r.position, r.workspace_id, r.version) > (place.position, place.workspace_id, place.version)
  ) then
    perform registry.invalid_argument('cursor', 'is older than changes that were pruned');
  end if;

  return query
    select
      concat_ws('.', c.position, c.workspace_id, c.version, coalesce((select r.prunings from fleet.retention as r), 0)),
      c.workspace_id,
      c.version,
      c.action,
      c.changed,
      c.previous_runtime::text,
      c.runtime::text,
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(with_key, c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source,
      c.provider,
      c.billed_to,
      c.actor,
      c.request_id::text,
      c.changed_at,
      c.secret::text,
      (workspace.change_of(c, null, null)).needs_restart
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit changes_after.batch;
end
$$;
comment on function fleet.changes_after(text, integer) is
  'The committed changes of all workspaces behind a cursor, each with its own cursor; none if there are no more for now.
Followed from cursor to cursor it gives each change exactly once, a workspace''s in the order of their versions. A change is given when
every transaction is over that was older than the one that made it: one that stays open, in any database of the cluster, prepared ones
too, holds the feed up, but never makes it skip anything.
cursor: that of the last change seen; null: from the beginning of what has not been pruned; see also fleet.current_cursor. Cursors stay
good on a standby and in a database restored from a dump. batch: how many changes at most.
Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, also for a cursor that is ahead of this database (its changes were lost) or older than changes that were
pruned: then take fleet.current_cursor and read the workspaces anew.';

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
      -- The first keeps the id taken (create_workspace), the last is where the next one goes on (next_position).
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

-- Who may call what.
revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.keys, keyring.sealed_value, keyring.data_key,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.numbering, workspace.snapshot, workspace.decision,
  workspace.key_use,
  fleet.retention, fleet.stored_model, fleet.pair, fleet.place
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
  fleet.restore_registry(bigint, text, boolean),
  fleet.revisions(),
  fleet.revision_manifest(bigint),
  fleet.deprecations(),
  fleet.changes_after(text, integer),
  fleet.current_cursor(),
  fleet.prune_changes(timestamptz, integer, text),
  keyring.init(),
  keyring.rotate(),
  keyring.rewrap(),
  keyring.reseal(uuid, integer),
  keyring.retire(integer),
  keyring.status(boolean)
to runtime_registry_admin;
