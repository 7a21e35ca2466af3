-- Runtime Registry: which models each agent runtime can run, and one call that switches a workspace's runtime.
--
--   psql -1 -v ON_ERROR_STOP=1 -f sql/install.sql
--
-- Four schemas; a schema uses only those below it.
--
--   fleet       all workspaces at once      load_registry
--   workspace   one workspace at a time     create_workspace  change_runtime  set_model  clear_model
--                                           delete_workspace  get_workspace  preview_runtime_change  history
--   keyring     how secrets are sealed      (internal: seal, unseal)
--   registry    what may run                resolve  default_model  menu  list_runtimes  list_models
--
-- A workspace is one row of workspace.workspaces; its model is the secret MODEL in workspace.secrets; every write adds
-- one to its version and one row to workspace.changes, in the same transaction. The registry tables are derived from
-- one manifest, kept in registry.revisions.
--
-- Locks are taken in one order everywhere: the registry (registry.hold says why), then workspaces by id, then secrets.
-- Only the functions named above are granted to the roles of roles.sql; no table is.

-- What the rest relies on: UTF8 (model ids are compared by their UTF-8 bytes), PostgreSQL 15, and a schema registry that
-- nobody else has put functions into for ours to call.

do $$
begin
  if current_setting('server_version_num')::integer < 150000 then
    raise exception using
      errcode = 'PT422',
      message = 'Runtime Registry needs PostgreSQL 15 or newer.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Upgrade the server, or install into a newer one.';
  end if;
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception using
      errcode = 'PT422',
      message = 'Runtime Registry needs a database with the encoding UTF8.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Create one: createdb --encoding=UTF8 --template=template0 NAME';
  end if;
  if exists (
    select from pg_catalog.pg_namespace as n where n.nspname = 'registry' and n.nspowner <> current_user::regrole
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'The database has a schema named registry that belongs to another role.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Install as its owner, or into another database.';
  end if;
end
$$;

-- What may run. Every table but revisions is derived from the current manifest and replaced with it as a whole
-- (registry.replace_registry), so rows carry what a lookup needs instead of what a normal form would ask for.

create schema if not exists registry;
comment on schema registry is 'What may run: providers, runtimes and the models registered for each.';

create table if not exists registry.alembic_version (
  version_num varchar(32) not null,
  constraint alembic_version_pkc primary key (version_num)
);
comment on table registry.alembic_version is 'The migration this database stands at; alembic''s version table.';

create table registry.state (
  singleton boolean not null default true,
  revision bigint not null,
  constraint state_pkey primary key (singleton),
  constraint state_has_one_row check (singleton)
);
comment on table registry.state is
  'One row: the current revision (0: none loaded yet). The table is also the gate between those who decide by the registry and those who replace it, see registry.hold.';

insert into registry.state (revision) values (0);

create table registry.revisions (
  revision bigint not null,
  manifest jsonb not null,
  loaded_at timestamptz not null,
  loaded_by text not null,
  constraint revisions_pkey primary key (revision)
);
comment on table registry.revisions is 'Every manifest that was ever loaded.';
comment on column registry.revisions.loaded_by is 'The setting runtime_registry.actor, else the session user.';

create table registry.providers (
  name text collate "C" not null,
  position bigint not null,
  billed_to text not null,
  auth_env text[] collate "C" not null,
  case_sensitive boolean not null,
  constraint providers_pkey primary key (name),
  constraint providers_billed_to_is_known check (billed_to in ('platform', 'tenant'))
);
comment on table registry.providers is 'Who serves models.';
comment on column registry.providers.billed_to is 'Who pays for this provider''s models: platform or tenant.';
comment on column registry.providers.auth_env is 'Names of the credentials it accepts; any one of them is enough.';
comment on column registry.providers.case_sensitive is
  'How its prefixes and aliases compare. False folds A-Z only. Exact ids always compare case-sensitively.';

create table registry.runtimes (
  name text collate "C" not null,
  position bigint not null,
  model_policy text not null,
  default_model text collate "C",
  menu_size bigint not null,
  constraint runtimes_pkey primary key (name),
  constraint runtimes_model_policy_is_known check (model_policy in ('registered', 'any'))
);
comment on table registry.runtimes is 'The agent programs a workspace can have. One without arms is federated: its models are not ours to list.';
comment on column registry.runtimes.model_policy is
  'registered: a model must be routable here. any: every model is accepted.';
comment on column registry.runtimes.default_model is
  'The manifest''s default_model, else the first id of the menu; null when the menu is empty.';
comment on column registry.runtimes.menu_size is 'How many models the menu has.';

create table registry.arms (
  runtime text collate "C" not null,
  position bigint not null,
  provider text collate "C" not null,
  constraint arms_pkey primary key (runtime, position),
  constraint arms_runtime_provider_key unique (runtime, provider)
);
comment on table registry.arms is 'The providers of each runtime, in order.';

create table registry.models (
  runtime text collate "C" not null,
  model text collate "C" not null,
  arm_position bigint not null,
  provider text collate "C" not null,
  menu_position bigint,
  constraint models_pkey primary key (runtime, model, arm_position),
  constraint models_runtime_menu_position_key unique (runtime, menu_position)
);
comment on table registry.models is 'The exact model ids that the arms list.';
comment on column registry.models.menu_position is
  'Its place on the runtime''s menu; null where an earlier arm already lists the id.';

create table registry.claims (
  runtime text collate "C" not null,
  case_folded boolean not null,
  pattern text collate "C" not null,
  is_prefix boolean not null,
  provider text collate "C" not null,
  constraint claims_pkey primary key (runtime, case_folded, pattern)
);
comment on table registry.claims is
  'The prefixes and aliases by which a runtime''s arms claim ids that no arm lists. What a prefix of the same provider already covers is left out, and two providers never overlap, so the greatest pattern not above an id is the only one that can claim it.';
comment on column registry.claims.case_folded is 'The pattern is in lower case and is compared with the id in lower case.';

create table registry.equivalents (
  model text collate "C" not null,
  group_number bigint not null,
  constraint equivalents_pkey primary key (model)
);
create index equivalents_group_number_idx on registry.equivalents (group_number);
comment on table registry.equivalents is 'Ids that name one underlying model share a group.';

create type registry.routing as (
  routable boolean,
  provider text,
  billed_to text
);
comment on type registry.routing is
  'Internal: whether a runtime can run a model, who serves it and who pays. Provider is null where any model is accepted and no arm claims it.';

create type registry.runtime_entry as (
  runtime text,
  model_policy text,
  default_model text,
  models bigint,
  providers text[]
);
comment on type registry.runtime_entry is 'One runtime, as registry.list_runtimes shows it.';

create type registry.model_entry as (
  position bigint,
  model text,
  provider text,
  billed_to text,
  is_default boolean
);
comment on type registry.model_entry is 'One registered model, as registry.list_models shows it.';

create type registry.manifest_problem as (
  path text,
  problem text
);
comment on type registry.manifest_problem is 'Internal: what is wrong with a manifest, and where.';
-- Internal.

create or replace function registry.trim_text(value text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Unicode's White_Space property.
  white_space constant text :=
    E'\u0009\u000a\u000b\u000c\u000d \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006'
    '\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';
begin
  return btrim(trim_text.value, white_space);
end
$$;
comment on function registry.trim_text(text) is 'Internal: the value without Unicode white space around it.';
-- Internal. The one rule for ids and names: not blank, no control characters, at most 255 bytes.

create or replace function registry.text_problem(value text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Unicode's control characters (C0, DEL, C1) and its two line breaks. translate() instead of a regular expression:
  -- Postgres caches only 32 of those a session.
  control_characters constant text :=
    E'\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\u0009\u000a\u000b\u000c\u000d\u000e\u000f'
    '\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\u007f'
    '\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f'
    '\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u2028\u2029';
begin
  if text_problem.value is null then
    return 'is null';
  elsif text_problem.value = '' then
    return 'is blank';
  elsif octet_length(text_problem.value) > 255 then
    return 'is longer than 255 bytes';
  elsif translate(text_problem.value, control_characters, '') <> text_problem.value then
    return 'has a control character';
  end if;
  return null;
end
$$;
comment on function registry.text_problem(text) is 'Internal: what is wrong with a trimmed id or name; null if nothing.';
-- Internal. The one place that raises INVALID_ARGUMENT. It names the argument and never repeats its value.

create or replace function registry.invalid_argument(argument text, problem text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT400',
    message = format('The argument %s %s.', invalid_argument.argument, invalid_argument.problem),
    detail = jsonb_build_object(
      'code', 'INVALID_ARGUMENT', 'argument', invalid_argument.argument, 'problem', invalid_argument.problem
    ),
    hint = 'Correct the argument and call again. Nothing was changed.';
end
$$;
comment on function registry.invalid_argument(text, text) is 'Internal: raises INVALID_ARGUMENT.';
-- Internal. Every id and name enters through here.

create or replace function registry.clean_text(value text, argument text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Not the caller's collation: it would go on into every comparison.
  cleaned text collate "C" := clean_text.value;
  problem text;
begin
  -- What is far too long is refused untrimmed: trimming needs 13 times its memory.
  if octet_length(cleaned) <= 4096 then
    cleaned := registry.trim_text(cleaned);
  end if;
  problem := registry.text_problem(cleaned);
  if problem is not null then
    perform registry.invalid_argument(clean_text.argument, problem);
  end if;
  return cleaned;
end
$$;
comment on function registry.clean_text(text, text) is
  'Internal: the value without white space around it; INVALID_ARGUMENT, naming the argument, if it is no legal id or name.';
-- Internal. Whoever decides by the registry calls this first, before any workspace is locked.

create or replace function registry.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Held to the end of the transaction. It conflicts with the exclusive lock that fleet.load_registry begins with and
  -- with nothing else: a pair is never decided on a registry that is being replaced, and a load judges the pairs
  -- that are there only when none is being written. Row locks would have every call write to the same few rows, and
  -- locking the workspace first would deadlock with a load.
  lock table registry.state in row share mode;

  -- Later statements of a READ COMMITTED transaction see what the load that made us wait has committed. Above it they
  -- would decide by the snapshot's registry, so a snapshot older than the current one must fail with 40001.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from registry.state as s for share;
  end if;
end
$$;
comment on function registry.hold() is
  'Internal: keeps the registry as it is until the transaction ends. Raises 40001 if the transaction''s snapshot is older than the registry.';
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
-- Internal. What a refusal says of the models that would have been accepted.

create or replace function registry.valid_models(runtime text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'valid_models', coalesce(
      (
        select jsonb_agg(listed.model order by listed.menu_position)
        from (
          select m.model, m.menu_position
          from registry.models as m
          where m.runtime = valid_models.runtime and m.menu_position is not null
          order by m.menu_position
          limit 50
        ) as listed
      ),
      '[]'
    ),
    'valid_models_total', coalesce(
      (select r.menu_size from registry.runtimes as r where r.name = valid_models.runtime), 0
    )
  )
$$;
comment on function registry.valid_models(text) is
  'Internal: the first 50 ids of a runtime''s menu and how many there are, for the DETAIL of a refusal.';
-- Internal.

create or replace function registry.require_runtime(runtime text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from registry.runtimes as r where r.name = require_runtime.runtime) then
    return;
  end if;
  if exists (select from registry.state as s where s.revision = 0) then
    raise exception using
      errcode = 'PT422',
      message = 'No registry is loaded.',
      detail = jsonb_build_object('code', 'REGISTRY_UNAVAILABLE'),
      hint = 'Load a manifest with fleet.load_registry.';
  end if;
  raise exception using
    errcode = 'PT422',
    message = format('The runtime %s is not in the registry.', to_json(require_runtime.runtime)),
    detail = jsonb_build_object(
      'code', 'RUNTIME_UNSUPPORTED',
      'runtime', require_runtime.runtime,
      'valid_runtimes', (
        select coalesce(jsonb_agg(r.name order by r.position), '[]') from registry.runtimes as r
      )
    ),
    hint = 'Take one of valid_runtimes. Runtime names are case-sensitive.';
end
$$;
comment on function registry.require_runtime(text) is
  'Internal: raises RUNTIME_UNSUPPORTED, or REGISTRY_UNAVAILABLE where nothing was ever loaded, unless the runtime is registered.';
-- Internal. The model itself is never named: the server log keeps what an error says.

create or replace function registry.refuse_model(runtime text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT422',
    message = format('The model is not registered for the runtime %s.', refuse_model.runtime),
    detail = jsonb_build_object('code', 'MODEL_NOT_REGISTERED', 'runtime', refuse_model.runtime)
      || registry.valid_models(refuse_model.runtime),
    hint = 'Take one of valid_models, or a runtime that has this model.';
end
$$;
comment on function registry.refuse_model(text) is 'Internal: raises MODEL_NOT_REGISTERED with the models that are.';
create or replace function registry.resolve(runtime text, model text, auth_env text[] default '{}')
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(resolve.runtime, 'runtime');
  asked_model constant text collate "C" := registry.clean_text(resolve.model, 'model');
  credentials constant text[] collate "C" := coalesce(resolve.auth_env, '{}');
  routing registry.routing;
begin
  perform registry.require_runtime(asked_runtime);
  routing := registry.route(asked_runtime, asked_model, credentials);
  return routing.provider;
end
$$;
comment on function registry.resolve(text, text, text[]) is
  'Tells which provider serves a model on a runtime; null if none does.
Only the runtime''s own arms are asked. An arm that lists the exact id wins; of several, the only one whose auth_env has a
name in common with auth_env (names of the credentials at hand), else the first. With no exact id, the arm whose provider
owns a matching alias or prefix.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
create or replace function registry.default_model(runtime text)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(default_model.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return (select r.default_model from registry.runtimes as r where r.name = asked_runtime);
end
$$;
comment on function registry.default_model(text) is
  'The model a runtime falls back to; null if its menu is empty.
It is the manifest''s default_model, else the first id of the menu.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
create or replace function registry.menu(runtime text)
returns setof text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(menu.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.model::text
    from registry.models as m
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;
comment on function registry.menu(text) is
  'A runtime''s registered models in order: the ids of its arms, each where it first occurs.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';
create or replace function registry.list_runtimes()
returns setof registry.runtime_entry
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    r.name,
    r.model_policy,
    r.default_model,
    r.menu_size,
    array(select a.provider::text from registry.arms as a where a.runtime = r.name order by a.position)
  from registry.runtimes as r
  order by r.position
$$;
comment on function registry.list_runtimes() is 'Every runtime in the registry, in the manifest''s order, with its default model and providers.';
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
-- Internal. What a manifest says, one row a thing, so that two manifests can be compared by joining their facts.

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
-- Internal. The caller holds the exclusive lock on registry.state and has found no problem in the manifest.

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

-- How secrets are sealed. Until the keyring has keys, values are kept plain (key_id null).

create schema keyring;
comment on schema keyring is 'How secrets are sealed. seal and unseal are the only door to a secret''s value.';

create type keyring.sealed_value as (
  sealed bytea,
  key_id integer
);
comment on type keyring.sealed_value is 'Internal: the bytes to store, and the key that sealed them (null: plain).';
-- Internal.

create or replace function keyring.seal(ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
end
$$;
comment on function keyring.seal(uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name.';
-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

create or replace function keyring.unseal(ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if unseal.key_id is not null then
    return null;  -- Sealed by a key that this keyring does not have.
  end if;
  return convert_from(unseal.sealed, 'UTF8');
exception
  -- The error would carry some of the bytes into the log.
  when character_not_in_repertoire or untranslatable_character then
    return null;
end
$$;
comment on function keyring.unseal(uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.';

-- The workspaces. No triggers, and every unique key begins with the workspace, so that the tables can be distributed by
-- it. No check on secrets or changes: a violation would print the row, and with it a model.

create schema workspace;
comment on schema workspace is 'The workspaces: one runtime and one model each, changed together, every change recorded.';

create table workspace.workspaces (
  id uuid not null,
  name text not null,
  runtime text collate "C" not null,
  version bigint not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint workspaces_pkey primary key (id),
  constraint workspaces_runtime_fkey foreign key (runtime) references registry.runtimes (name)
) with (fillfactor = 85);
comment on table workspace.workspaces is 'One row a workspace. Its row lock guards its secrets too.';
comment on column workspace.workspaces.version is 'Counts the workspace''s changes; the version of its newest row in changes.';

create table workspace.secrets (
  workspace_id uuid not null,
  key text collate "C" not null,
  sealed bytea not null,
  key_id integer,
  updated_at timestamptz not null,
  constraint secrets_pkey primary key (workspace_id, key),
  constraint secrets_workspace_id_fkey foreign key (workspace_id) references workspace.workspaces (id)
) with (fillfactor = 85);
comment on table workspace.secrets is 'The workspaces'' secrets; a workspace''s model is the one named MODEL.';
comment on column workspace.secrets.sealed is 'Made by keyring.seal, read by keyring.unseal.';
comment on column workspace.secrets.key_id is 'The key that sealed it; null: stored plain.';

create table workspace.changes (
  workspace_id uuid not null,
  version bigint not null,
  action text not null,
  changed boolean not null,
  previous_runtime text collate "C",
  runtime text collate "C",
  previous_sealed bytea,
  previous_key_id integer,
  sealed bytea,
  key_id integer,
  model_source text not null,
  provider text,
  billed_to text,
  billing_changed boolean not null,
  restore boolean not null,
  actor text not null,
  request_id text collate "C",
  changed_at timestamptz not null,
  txid xid8 not null,
  constraint changes_pkey primary key (workspace_id, version)
);
create unique index changes_workspace_id_request_id_key
  on workspace.changes (workspace_id, request_id) where request_id is not null;
comment on table workspace.changes is
  'Every write to a workspace, in order; nothing is updated or deleted here. It outlives its workspace.';
comment on column workspace.changes.action is 'The function that made the change.';
comment on column workspace.changes.changed is
  'False: the call found nothing to do and is recorded because it had a request_id.';
comment on column workspace.changes.previous_sealed is
  'The model before, as it was sealed; null if there was none or it was unreadable.';
comment on column workspace.changes.sealed is 'The model after, as it was sealed; null if there is none.';
comment on column workspace.changes.model_source is
  'Where the model came from: requested, kept, restored, equivalent, default or none.';
comment on column workspace.changes.restore is 'Whether change_runtime was asked to restore.';
comment on column workspace.changes.actor is 'The setting runtime_registry.actor, else the session user.';
comment on column workspace.changes.txid is 'The transaction that made the change.';

create type workspace.change as (
  workspace_id uuid,
  version bigint,
  changed boolean,
  previous_runtime text,
  runtime text,
  previous_model text,
  model text,
  model_source text,
  model_was_reset boolean,
  provider text,
  billed_to text,
  billing_changed boolean,
  needs_restart boolean
);
comment on type workspace.change is
  'What a write did to a workspace (or, from a preview, would do).
workspace_id: the workspace. version: its version after this. changed: whether anything changed.
previous_runtime, runtime, previous_model, model: the pair before and after; previous_model is null too if it was unreadable.
model_source: why it is this model: requested (the caller asked for it), kept (routable as it was), restored (the last one on this
runtime), equivalent (the same model under this runtime''s id), default (the runtime''s) or none (there is none).
model_was_reset: true for restored, equivalent and default: an orphaned model was replaced.
provider, billed_to: who serves the model and who pays. billing_changed: it is known who pays and who paid before, and they are not the same.
needs_restart: the running agent does not have this pair yet.';

create type workspace.state as (
  workspace_id uuid,
  name text,
  runtime text,
  model text,
  model_registered boolean,
  provider text,
  billed_to text,
  version bigint,
  created_at timestamptz,
  updated_at timestamptz
);
comment on type workspace.state is
  'A workspace as it is. model_registered: whether its model is routable on its runtime; null without a model.';

create type workspace.history_entry as (
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
  changed_at timestamptz
);
comment on type workspace.history_entry is 'One change of a workspace, with its models readable; a model that cannot be read any more is null.';

create type workspace.snapshot as (
  workspace_id uuid,
  runtime text,
  version bigint,
  sealed bytea,
  key_id integer,
  model text,
  model_is_unreadable boolean
);
comment on type workspace.snapshot is 'Internal: what a decision about a workspace starts from.';

create type workspace.decision as (
  runtime text,
  model text,
  model_source text,
  provider text,
  billed_to text
);
comment on type workspace.decision is 'Internal: the pair that a workspace shall have.';
-- Internal.

create or replace function workspace.actor()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return left(coalesce(nullif(current_setting('runtime_registry.actor', true), ''), session_user), 255);
end
$$;
comment on function workspace.actor() is
  'Internal: who the history names: the setting runtime_registry.actor (its first 255 characters), else the session user.';
-- Internal.

create or replace function workspace.optional_text(value text, argument text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only null means "not given": a blank value is a mistake, never a silent null.
  return case when optional_text.value is not null then registry.clean_text(optional_text.value, optional_text.argument) end;
end
$$;
comment on function workspace.optional_text(text, text) is 'Internal: null, or the value as registry.clean_text leaves it.';
-- Internal.

create or replace function workspace.secret_unreadable(ws uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT500',
    message = 'The model of this workspace cannot be read.',
    detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', secret_unreadable.ws),
    hint = 'Name a model when you change the runtime, or call workspace.set_model or workspace.clear_model: they replace it.';
end
$$;
comment on function workspace.secret_unreadable(uuid) is 'Internal: raises SECRET_UNREADABLE.';
-- Internal.

create or replace function workspace.workspace_not_found(ws uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT404',
    message = format('There is no workspace %s.', workspace_not_found.ws),
    detail = jsonb_build_object('code', 'WORKSPACE_NOT_FOUND', 'workspace_id', workspace_not_found.ws),
    hint = 'It was deleted, or never created; workspace.history shows which.';
end
$$;
comment on function workspace.workspace_not_found(uuid) is 'Internal: raises WORKSPACE_NOT_FOUND.';
-- Internal. One statement, so that the pair is never torn.

create or replace function workspace.read_workspace(ws uuid)
returns workspace.snapshot
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot workspace.snapshot;
begin
  if read_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select w.id, w.runtime, w.version, s.sealed, s.key_id, keyring.unseal(w.id, s.key, s.sealed, s.key_id)
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id, snapshot.model
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;
comment on function workspace.read_workspace(uuid) is
  'Internal: a workspace''s runtime, version and model. Raises INVALID_ARGUMENT or WORKSPACE_NOT_FOUND.';
-- Internal. The registry is held before (registry.hold).

create or replace function workspace.lock_workspace(ws uuid)
returns workspace.snapshot
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if lock_workspace.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock
  -- and the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret
  -- as it was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next
  -- statement might see it.
  perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;
  if not found then
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;
  return workspace.read_workspace(lock_workspace.ws);
end
$$;
comment on function workspace.lock_workspace(uuid) is
  'Internal: locks a workspace until the transaction ends and reads it. Raises as read_workspace does.';
-- Internal.

create or replace function workspace.version_conflict(current workspace.snapshot, expected_version bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT409',
    message = format(
      'The workspace is at version %s, not at the expected %s.', current.version, version_conflict.expected_version
    ),
    detail = jsonb_build_object(
      'code', 'VERSION_CONFLICT',
      'workspace_id', current.workspace_id,
      'expected_version', version_conflict.expected_version,
      'version', current.version
    ),
    hint = 'Somebody else changed the workspace. Read it again and decide anew.';
end
$$;
comment on function workspace.version_conflict(workspace.snapshot, bigint) is 'Internal: raises VERSION_CONFLICT.';
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
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';
-- Internal. What a request_id settles: a caller that lost our answer asks again and gets the same one.

create or replace function workspace.recorded_answer(
  ws uuid,
  request_id text,
  action text,
  runtime text,
  model text,
  restore boolean
)
returns workspace.change
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded workspace.changes;
  answer workspace.change;
begin
  if recorded_answer.request_id is null then
    return null;
  end if;
  select c.*
  into recorded
  from workspace.changes as c
  where c.workspace_id = recorded_answer.ws and c.request_id = recorded_answer.request_id;
  if not found then
    return null;
  end if;

  answer := workspace.change_of(
    recorded,
    keyring.unseal(recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id),
    keyring.unseal(recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id)
  );

  if recorded.sealed is not null and answer.model is null then
    perform workspace.secret_unreadable(recorded_answer.ws);
  end if;

  -- What was asked for can be read off what was done. The version that was expected is a condition of the request, not a
  -- part of it.
  if recorded.action <> recorded_answer.action
    or (recorded_answer.action = 'change_runtime' and recorded.runtime <> recorded_answer.runtime)
    or recorded.restore <> recorded_answer.restore
    or (case when recorded.model_source = 'requested' then answer.model end) is distinct from recorded_answer.model
  then
    raise exception using
      errcode = 'PT422',
      message = 'The request_id was already used for a different request on this workspace.',
      detail = jsonb_build_object('code', 'REQUEST_ID_REUSED', 'workspace_id', recorded_answer.ws),
      hint = 'Take a new request_id for a new request.';
  end if;
  return answer;
end
$$;
comment on function workspace.recorded_answer(uuid, text, text, text, text, boolean) is
  'Internal: the answer recorded for this request, null if there is none. Raises REQUEST_ID_REUSED if it was a different request.';
-- Internal. The decision itself. Everything that switches a runtime, or previews it, asks here.

create or replace function workspace.choose_model(
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
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    routing := registry.route(choose_model.runtime, choose_model.model, '{}');
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
  routing := registry.route(choose_model.runtime, decided.model, '{}');

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not routing.routable and choose_model.restore then
    decided.model := (
      select keyring.unseal(c.workspace_id, 'MODEL', c.sealed, c.key_id)
      from workspace.changes as c
      where c.workspace_id = current.workspace_id
        and c.runtime = choose_model.runtime
        and c.sealed is not null
      order by c.version desc
      limit 1
    );
    decided.model_source := 'restored';
    routing := registry.route(choose_model.runtime, decided.model, '{}');
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
    routing := registry.route(choose_model.runtime, decided.model, '{}');
  end if;

  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  return decided;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why. Raises MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';
-- Internal. The workspace's row is locked before.

create or replace function workspace.store_model(ws uuid, model text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Sealed before the insert: a plain value must never reach a table or the WAL.
  stored constant keyring.sealed_value := keyring.seal(store_model.ws, 'MODEL', store_model.model);
  stored_at constant timestamptz := clock_timestamp();
begin
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (store_model.ws, 'MODEL', stored.sealed, stored.key_id, stored_at)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;
  return stored;
end
$$;
comment on function workspace.store_model(uuid, text) is 'Internal: seals a model and stores it as the workspace''s secret.';
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
  described.billing_changed := false;
  if described.changed and current.model is not null then
    previous := registry.route(current.runtime, current.model, '{}');
    described.billing_changed := coalesce(previous.billed_to <> decided.billed_to, false);
  end if;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet (its version is the current one).';
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
begin
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid
  )
  values (
    described.workspace_id, described.version, described.action, described.changed,
    described.previous_runtime, described.runtime,
    case when not current.model_is_unreadable then current.sealed end,
    case when not current.model_is_unreadable then current.key_id end,
    stored.sealed, stored.key_id,
    described.model_source, described.provider, described.billed_to, described.billing_changed,
    record_change.restore, actor, record_change.request_id, changed_at, txid
  );
end
$$;
comment on function workspace.record_change(workspace.changes, workspace.snapshot, keyring.sealed_value, boolean, text) is
  'Internal: writes the row of changes.';
-- Internal. The workspace's row is locked before. All of it or, if any statement fails, nothing.

create or replace function workspace.write_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean,
  request_id text
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  described workspace.changes := workspace.describe_change(
    write_change.current, write_change.decided, write_change.action
  );
  stored keyring.sealed_value := (current.sealed, current.key_id);
  moment constant timestamptz := clock_timestamp();
begin
  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not described.changed and write_change.request_id is null then
    return workspace.change_of(described, current.model, decided.model);
  end if;

  -- A model that stays keeps its bytes.
  if decided.model is distinct from current.model or current.model_is_unreadable then
    if decided.model is null then
      delete from workspace.secrets as s where s.workspace_id = current.workspace_id and s.key = 'MODEL';
      stored := null;
    else
      stored := workspace.store_model(current.workspace_id, decided.model);
    end if;
  end if;

  described.version := current.version + 1;
  update workspace.workspaces as w
  set runtime = decided.runtime, version = described.version, updated_at = moment
  where w.id = current.workspace_id;

  perform workspace.record_change(described, current, stored, write_change.restore, write_change.request_id);
  return workspace.change_of(described, current.model, decided.model);
end
$$;
comment on function workspace.write_change(workspace.snapshot, workspace.decision, text, boolean, text) is
  'Internal: stores what was decided about an existing workspace, records it and says what was done.';
create or replace function workspace.create_workspace(
  name text,
  runtime text,
  model text default null,
  id uuid default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  called constant text collate "C" := registry.clean_text(create_workspace.name, 'name');
  target constant text collate "C" := registry.clean_text(create_workspace.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(create_workspace.model, 'model');
  moment timestamptz;
  absent workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
  stored keyring.sealed_value;
begin
  absent.workspace_id := coalesce(create_workspace.id, gen_random_uuid());
  absent.version := 0;
  absent.model_is_unreadable := false;

  perform registry.hold();
  moment := clock_timestamp();
  perform registry.require_runtime(target);
  decided := workspace.choose_model(absent, target, wanted, false);

  described := workspace.describe_change(absent, decided, 'create_workspace');
  described.version := 1;
  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at)
    values (
      absent.workspace_id, called, target, described.version,
      moment, moment
    );
    if wanted is not null then
      stored := workspace.store_model(absent.workspace_id, wanted);
    end if;
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    perform workspace.record_change(described, absent, stored, false, null);
  exception
    when unique_violation then
      raise exception using
        errcode = 'PT409',
        message = format('The workspace id %s is taken.', absent.workspace_id),
        detail = jsonb_build_object('code', 'WORKSPACE_EXISTS', 'workspace_id', absent.workspace_id),
        hint = 'Leave id out to get a new one. The id of a deleted workspace stays taken.';
  end;
  return workspace.change_of(described, null, wanted);
end
$$;
comment on function workspace.create_workspace(text, text, text, uuid) is
  'Creates a workspace. Strict on the pair: a model that is not registered for the runtime is refused.
name: what people call it; need not be unique. runtime: its runtime. model: its model; null: none yet. id: its id; null: a new random one.
Errors: INVALID_ARGUMENT, WORKSPACE_EXISTS, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, REGISTRY_UNAVAILABLE. Above READ COMMITTED,
40001 if the registry was loaded meanwhile.';
create or replace function workspace.change_runtime(
  ws uuid,
  runtime text,
  model text default null,
  restore boolean default false,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target constant text collate "C" := registry.clean_text(change_runtime.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(change_runtime.model, 'model');
  request constant text collate "C" := workspace.optional_text(change_runtime.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if change_runtime.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.hold();
  if request is null then
    perform registry.require_runtime(target);
  end if;
  current := workspace.lock_workspace(change_runtime.ws);

  -- A replay is answered before anything is checked: its first try has moved the version, and the runtime may be gone since.
  if request is not null then
    answer := workspace.recorded_answer(
      current.workspace_id, request, 'change_runtime', target, wanted, change_runtime.restore
    );
    if answer.workspace_id is not null then
      return answer;
    end if;
    perform registry.require_runtime(target);
  end if;

  if change_runtime.expected_version <> current.version then
    perform workspace.version_conflict(current, change_runtime.expected_version);
  end if;
  decided := workspace.choose_model(current, target, wanted, change_runtime.restore);
  return workspace.write_change(current, decided, 'change_runtime', change_runtime.restore, request);
end
$$;
comment on function workspace.change_runtime(uuid, text, text, boolean, bigint, text) is
  'Switches a workspace to a runtime and, where its model is not registered there, to a model that is.
The model: model if given (strict: refused unless registered for the runtime); else the current one if it is registered there; else, with
restore, the one this workspace last had on that runtime; else an equivalent of the current one; else the runtime''s default.
A workspace without a model stays without.
ws: the workspace. runtime: the new runtime. expected_version: refuse unless the workspace is at this version. request_id: the
caller''s name for this request; repeated, it gets the recorded answer and changes nothing.
Secret, runtime, version and the row in the history are written together or not at all. Where there is nothing to change, nothing is
written (with a request_id, the answer is recorded).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, NO_DEFAULT_MODEL,
REGISTRY_UNAVAILABLE, REQUEST_ID_REUSED, SECRET_UNREADABLE. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.
Call it as: select * from workspace.change_runtime(...). In (workspace.change_runtime(...)).* it would run once a column.';
create or replace function workspace.set_model(
  ws uuid,
  model text,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text collate "C" := registry.clean_text(set_model.model, 'model');
  request constant text collate "C" := workspace.optional_text(set_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  current := workspace.lock_workspace(set_model.ws);

  answer := workspace.recorded_answer(current.workspace_id, request, 'set_model', null, wanted, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if set_model.expected_version <> current.version then
    perform workspace.version_conflict(current, set_model.expected_version);
  end if;
  decided := workspace.choose_model(current, current.runtime, wanted, false);
  return workspace.write_change(current, decided, 'set_model', false, request);
end
$$;
comment on function workspace.set_model(uuid, text, bigint, text) is
  'Gives a workspace the model that the caller chose.
Strict: a model that is not registered for the workspace''s runtime is refused with the list of those that are; it never chooses another.
ws: the workspace. model: the model id. expected_version: refuse unless the workspace is at this version. request_id: the caller''s
name for this request; repeated, it gets the recorded answer and changes nothing.
It also replaces a model that cannot be read any more.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, MODEL_NOT_REGISTERED, REQUEST_ID_REUSED. Above READ COMMITTED,
40001 if the registry was loaded meanwhile.';
create or replace function workspace.clear_model(
  ws uuid,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  request constant text collate "C" := workspace.optional_text(clear_model.request_id, 'request_id');
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  perform registry.hold();
  current := workspace.lock_workspace(clear_model.ws);

  answer := workspace.recorded_answer(current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current, clear_model.expected_version);
  end if;
  decided.runtime := current.runtime;
  decided.model_source := 'none';
  return workspace.write_change(current, decided, 'clear_model', false, request);
end
$$;
comment on function workspace.clear_model(uuid, bigint, text) is
  'Removes a workspace''s model, readable or not.
ws: the workspace. expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request;
repeated, it gets the recorded answer and changes nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, REQUEST_ID_REUSED. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';
create or replace function workspace.delete_workspace(ws uuid, expected_version bigint default null)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  current workspace.snapshot;
  decided workspace.decision;
  described workspace.changes;
begin
  perform registry.hold();
  current := workspace.lock_workspace(delete_workspace.ws);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current, delete_workspace.expected_version);
  end if;

  decided.model_source := 'none';
  described := workspace.describe_change(current, decided, 'delete_workspace');
  described.version := current.version + 1;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  perform workspace.record_change(described, current, null, false, null);
  return workspace.change_of(described, current.model, null);
end
$$;
comment on function workspace.delete_workspace(uuid, bigint) is
  'Deletes a workspace and all its secrets. Its history stays, and its id stays taken.
ws: the workspace. expected_version: refuse unless the workspace is at this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';
create or replace function workspace.get_workspace(ws uuid)
returns workspace.state
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A stable function and all it calls see one snapshot: the pair, its routing and its version belong together.
  current constant workspace.snapshot := workspace.read_workspace(get_workspace.ws);
  routing registry.routing;
  state workspace.state;
begin
  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;
  if current.model is not null then
    routing := registry.route(current.runtime, current.model, '{}');
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
create or replace function workspace.preview_runtime_change(
  ws uuid,
  runtime text,
  model text default null,
  restore boolean default false
)
returns workspace.change
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target constant text collate "C" := registry.clean_text(preview_runtime_change.runtime, 'runtime');
  wanted constant text collate "C" := workspace.optional_text(preview_runtime_change.model, 'model');
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.require_runtime(target);
  current := workspace.read_workspace(preview_runtime_change.ws);
  decided := workspace.choose_model(current, target, wanted, preview_runtime_change.restore);
  return workspace.change_of(
    workspace.describe_change(current, decided, 'change_runtime'), current.model, decided.model
  );
end
$$;
comment on function workspace.preview_runtime_change(uuid, text, text, boolean) is
  'What workspace.change_runtime would answer now, without writing or locking anything.
The arguments are those of change_runtime. The version is the one the answer was decided on: given to change_runtime as expected_version, it makes
sure that the workspace is still the same. (The registry may have changed.)
Errors: as change_runtime.';
create or replace function workspace.history(ws uuid)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  return query
    select
      c.workspace_id,
      c.version,
      c.action,
      c.changed,
      c.previous_runtime::text,
      c.runtime::text,
      keyring.unseal(c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source,
      c.provider,
      c.billed_to,
      c.actor,
      c.request_id::text,
      c.changed_at
    from workspace.changes as c
    where c.workspace_id = history.ws
    order by c.version;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';

create schema fleet;
comment on schema fleet is 'All workspaces at once.';

create type fleet.registry_load as (
  revision bigint,
  loaded boolean,
  added jsonb,
  removed jsonb,
  changed jsonb,
  orphans jsonb
);
comment on type fleet.registry_load is
  'What loading a manifest did, or would do.
revision: the registry''s revision now. loaded: whether the manifest was loaded.
added, removed, changed: arrays of the providers, runtimes, arms, models and equivalents concerned, each an object with its kind and names,
a changed one with what differs before (from) and after (to).
orphans: the workspaces whose model this manifest leaves unroutable, an array of objects with workspace_id and runtime.';
-- Internal.

create or replace function fleet.unroutable_workspaces()
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A fleet has many workspaces and few distinct pairs: each pair is routed once.
  return query
    with stored as materialized (
      select w.id, w.runtime, keyring.unseal(w.id, s.key, s.sealed, s.key_id) as model
      from workspace.workspaces as w
      join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    ),
    routed as materialized (
      select pair.runtime, pair.model, (registry.route(pair.runtime, pair.model, '{}')).routable as is_routable
      from (select distinct s.runtime, s.model from stored as s) as pair
    )
    select s.id
    from stored as s
    left join routed as r on r.runtime = s.runtime and r.model = s.model
    where r.is_routable is not true;
end
$$;
comment on function fleet.unroutable_workspaces() is
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

  -- A snapshot from before the lock would hide the workspaces written until then.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = 'PT400',
      message = 'A registry can only be loaded at the isolation level READ COMMITTED.',
      detail = jsonb_build_object('code', 'ISOLATION_UNSUPPORTED', 'isolation', current_setting('transaction_isolation')),
      hint = 'Begin the transaction with: begin isolation level read committed.';
  end if;

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

  unroutable_before := array(select before.id from fleet.unroutable_workspaces() as before (id));
  begin
    perform registry.replace_registry(load_registry.manifest, current_revision + 1, workspace.actor());

    select coalesce(
      jsonb_agg(jsonb_build_object('workspace_id', w.id, 'runtime', w.runtime) order by w.id), '[]'
    )
    into load.orphans
    from fleet.unroutable_workspaces() as after (id)
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

-- Roles belong to the whole cluster: another database may have made them, perhaps at this very moment.

do $$
declare
  role_name text;
begin
  foreach role_name in array array['runtime_registry_reader', 'runtime_registry_operator', 'runtime_registry_admin'] loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        when duplicate_object or unique_violation then
          null;
      end;
    end if;
  end loop;
end
$$;
-- Who may call what. Tables are granted to nobody: the functions below run with their owner's rights.

revoke all on all functions in schema registry, keyring, workspace, fleet from public;

-- Whoever can use a table's row type can put it into a table of their own, and so stand in the way of a later revision.
-- The types of results stay usable.
revoke all on type
  registry.alembic_version, registry.state, registry.revisions, registry.providers, registry.runtimes, registry.arms,
  registry.models, registry.claims, registry.equivalents, registry.routing, registry.manifest_problem,
  keyring.sealed_value,
  workspace.workspaces, workspace.secrets, workspace.changes, workspace.snapshot, workspace.decision
from public;

grant usage on schema registry, workspace
  to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;
grant usage on schema fleet
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
  workspace.history(uuid)
to runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- Operators, and with them admins.
grant execute on function
  workspace.create_workspace(text, text, text, uuid),
  workspace.change_runtime(uuid, text, text, boolean, bigint, text),
  workspace.set_model(uuid, text, bigint, text),
  workspace.clear_model(uuid, bigint, text),
  workspace.delete_workspace(uuid, bigint)
to runtime_registry_operator, runtime_registry_admin;

-- Admins.
grant execute on function
  fleet.load_registry(jsonb, text, boolean)
to runtime_registry_admin;
