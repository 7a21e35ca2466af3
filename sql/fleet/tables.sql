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
