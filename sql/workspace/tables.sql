-- The workspaces. No triggers, and every unique key begins with the workspace, so that the tables can be distributed by
-- it. No check on secrets or changes: a violation would print the row, and with it a model.
--
-- A session's plans are made once, often while the tables are small, and have to stay good when they are large: the public
-- functions on one workspace are set to scan no table, and not to compile a plan that seems dear for that.

create schema workspace;
comment on schema workspace is 'The workspaces: one runtime and one model each, changed together, every change recorded.';

create table workspace.workspaces (
  id uuid not null,
  name text not null,
  runtime text collate "C" not null,
  version bigint not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  position bigint not null default 0,
  constraint workspaces_pkey primary key (id),
  constraint workspaces_runtime_fkey foreign key (runtime) references registry.runtimes (name)
) with (fillfactor = 85);
comment on table workspace.workspaces is 'One row a workspace. Its row lock guards its secrets too.';
comment on column workspace.workspaces.version is 'Counts the workspace''s changes; the version of its newest row in changes.';
comment on column workspace.workspaces.position is 'The position of its newest row in changes.';

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
  secret text collate "C",
  model_deprecated boolean not null default false,
  model_sunset_at timestamptz,
  position bigint not null default 0,
  name text,
  constraint changes_pkey primary key (workspace_id, version)
);
create unique index changes_workspace_id_request_id_key
  on workspace.changes (workspace_id, request_id) where request_id is not null;
create index changes_position_idx on workspace.changes (position, workspace_id, version);
comment on table workspace.changes is
  'Every write to a workspace, in order; only keyring.reseal rewrites sealed bytes and only fleet.prune_changes deletes. It outlives its workspace.';
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
comment on column workspace.changes.secret is 'The secret that set_secret or delete_secret changed; null: the model''s or none.';
comment on column workspace.changes.txid is 'The transaction that made the change.';
comment on column workspace.changes.model_deprecated is
  'Whether the registry deprecated the model after, there and then; its end, if that was known, is model_sunset_at.';
comment on column workspace.changes.position is
  'Its place in the feed, see workspace.lock_workspace; 0: made before there was a feed.';
comment on column workspace.changes.name is 'The name that the call gave; null: it gave none.';

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
  needs_restart boolean,
  model_deprecated boolean,
  model_sunset_at timestamptz
);
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
  updated_at timestamptz,
  model_deprecated boolean,
  model_sunset_at timestamptz
);
comment on type workspace.state is
  'A workspace as it is. model_registered: whether its model is routable on its runtime; null without a model.
model_deprecated: the model is registered, but should not be used any more. model_sunset_at: when it ends, if that is known.';

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
  changed_at timestamptz,
  secret text,
  name text
);
comment on type workspace.history_entry is
  'One change of a workspace, with its models readable; a model that cannot be read any more is null. secret: the name of the secret that
set_secret or delete_secret changed, never its value. name: the name that the change gave, if any.';

create type workspace.secret_entry as (
  name text,
  updated_at timestamptz
);
comment on type workspace.secret_entry is 'A secret that a workspace has; never its value.';

create type workspace.key_use as (
  key_id integer,
  secrets bigint,
  history bigint,
  unreadable bigint
);
comment on type workspace.key_use is 'Internal: how many values a key sealed (null: stored plain), and how many of them do not open.';

create type workspace.snapshot as (
  workspace_id uuid,
  runtime text,
  version bigint,
  sealed bytea,
  key_id integer,
  model text,
  model_is_unreadable boolean,
  with_key keyring.data_key,
  next_position bigint
);
comment on type workspace.snapshot is
  'Internal: what a decision about a workspace starts from. with_key: the key that seals. next_position: the place of its next change in the feed; null where only the pair is read.';

create type workspace.decision as (
  runtime text,
  model text,
  model_source text,
  provider text,
  billed_to text,
  model_deprecated boolean,
  model_sunset_at timestamptz,
  changed boolean,
  billing_changed boolean
);
comment on type workspace.decision is
  'Internal: the pair that a workspace shall have, and why; changed: whether it has another one, or none that can be read.';
