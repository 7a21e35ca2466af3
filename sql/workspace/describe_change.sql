-- Internal.

create or replace function workspace.describe_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean default false,
  request_id text default null,
  name text default null
)
returns workspace.changes
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- In one expression: what plpgsql evaluates costs for each, in every transaction.
  return (
    current.workspace_id,
    current.version,
    describe_change.action,
    decided.changed,
    current.runtime,  -- previous_runtime
    decided.runtime,
    case when not current.model_is_unreadable then current.sealed end,  -- previous_sealed
    case when not current.model_is_unreadable then current.key_id end,  -- previous_key_id
    null,  -- sealed
    null,  -- key_id
    decided.model_source,
    decided.provider,
    decided.billed_to,
    decided.billing_changed,
    describe_change.restore,
    null,  -- actor
    describe_change.request_id,
    null,  -- changed_at
    null,  -- txid
    null,  -- secret
    decided.model_deprecated,
    decided.model_sunset_at,
    current.next_position,  -- position
    describe_change.name
  )::workspace.changes;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text, boolean, text, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet: its version is the current one, and the model after is missing.';
