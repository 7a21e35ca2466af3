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
