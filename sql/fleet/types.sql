create schema fleet;
comment on schema fleet is 'All workspaces at once.';

create type fleet.workspace_entry as (
  workspace_id uuid,
  name text,
  runtime text,
  version bigint,
  created_at timestamptz,
  updated_at timestamptz
);
comment on type fleet.workspace_entry is 'A workspace in a list: what workspace.get_workspace tells of it, but for the model.';

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
  needs_restart boolean,
  name text
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

create type fleet.orphan as (
  workspace_id uuid,
  runtime text,
  model text,
  problem text,
  reset_model text,
  reset_source text
);
comment on type fleet.orphan is
  'A workspace whose model is not routable on its runtime, or cannot be read.
problem: not registered, or unreadable (then model is null). reset_model, reset_source: what fleet.reset_orphans would give it: an
equivalent or the default; both null where it would refuse.';

create type fleet.move_entry as (
  workspace_id uuid,
  outcome text,
  code text,
  version bigint,
  previous_runtime text,
  runtime text,
  previous_model text,
  model text,
  model_source text
);
comment on type fleet.move_entry is
  'What fleet.move or fleet.reset_orphans did to one workspace, or would do.
outcome: changed; unchanged (there was nothing to do); recorded (this request_id had done it before, and this is the answer of then); refused (code says
why; nothing was changed); skipped (somebody holds it); gone (it is deleted, or on another runtime).
version, runtime, model: those after it. model_source: why it is this model, as in workspace.change.';

create type fleet.overview_entry as (
  runtime text,
  model_source text,
  workspaces bigint
);
comment on type fleet.overview_entry is
  'How many workspaces have a runtime, and a model that came from there: requested, restored, equivalent, default or none (they have no model),
or kept: longer ago than the history goes back.';
