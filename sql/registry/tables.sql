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
  restored_from bigint,
  constraint revisions_pkey primary key (revision)
);
comment on table registry.revisions is 'Every manifest that was ever loaded.';
comment on column registry.revisions.loaded_by is 'The setting runtime_registry.actor, else the session user.';
comment on column registry.revisions.restored_from is 'The older revision that fleet.restore_registry loaded again; null: it came as a manifest.';

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
  folds_case boolean not null,
  constraint runtimes_pkey primary key (name),
  constraint runtimes_model_policy_is_known check (model_policy in ('registered', 'any'))
);
comment on table registry.runtimes is 'The agent programs a workspace can have. One without arms is federated: its models are not ours to list.';
comment on column registry.runtimes.model_policy is
  'registered: a model must be routable here. any: every model is accepted.';
comment on column registry.runtimes.default_model is
  'The manifest''s default_model, else the first id of the menu; null when the menu is empty.';
comment on column registry.runtimes.menu_size is 'How many models the menu has.';
comment on column registry.runtimes.folds_case is 'Whether any of its claims is compared in lower case.';

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
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text collate "C",
  billed_to text not null,
  is_contested boolean not null,
  has_equivalents boolean not null,
  constraint models_pkey primary key (runtime, model, arm_position),
  constraint models_runtime_menu_position_key unique (runtime, menu_position)
);
comment on table registry.models is 'The exact model ids that the arms list.';
comment on column registry.models.menu_position is
  'Its place on the runtime''s menu; null where an earlier arm already lists the id.';
comment on column registry.models.deprecated_at is 'From when on it should not be used any more; null: it is not deprecated.';
comment on column registry.models.sunset_at is 'From when on it is not going to work any more; null: not known.';
comment on column registry.models.successor is 'The id to use instead; null: none is named.';
comment on column registry.models.is_contested is
  'Several arms of the runtime list the id: the credentials at hand may decide who serves it.';
comment on column registry.models.has_equivalents is 'Whether equivalents names the id.';

create table registry.claims (
  runtime text collate "C" not null,
  case_folded boolean not null,
  pattern text collate "C" not null,
  is_prefix boolean not null,
  provider text collate "C" not null,
  billed_to text not null,
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
  billed_to text,
  deprecated boolean,
  sunset_at timestamptz
);
comment on type registry.routing is
  'Internal: whether a runtime can run a model, who serves it, who pays and for how long. Provider is null where any model is accepted and no arm claims it. Deprecated is null where no arm lists the id.';

create type registry.finding as (
  routing registry.routing,
  is_contested boolean,
  default_model text,
  default_routing registry.routing,
  default_is_contested boolean,
  previous_billed_to text,
  previous_is_contested boolean,
  has_equivalents boolean
);
comment on type registry.finding is
  'Internal: what the registry knows of a model on a runtime, of the runtime''s default, and of the model on the runtime before (null where no arm lists it there). Where an id is contested, the routing is that without credentials.';

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
  is_default boolean,
  deprecated_at timestamptz,
  sunset_at timestamptz,
  successor text
);
comment on type registry.model_entry is 'One registered model, as registry.list_models shows it.';

create type registry.installation as (
  schema_revision text,
  registry_revision bigint
);
comment on type registry.installation is
  'What registry.status finds. schema_revision: the migration this database stands at. registry_revision: the registry that is loaded; 0: none.';

create type registry.content as (
  providers registry.providers[],
  runtimes registry.runtimes[],
  arms registry.arms[],
  models registry.models[],
  claims registry.claims[],
  equivalents registry.equivalents[]
);
comment on type registry.content is 'Internal: the rows of all tables that are derived from a manifest.';

create type registry.manifest_problem as (
  path text,
  problem text
);
comment on type registry.manifest_problem is 'Internal: what is wrong with a manifest, and where.';
