-- Internal.

create or replace function workspace.describe_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text
)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    current.workspace_id,
    current.version,
    decided.changed,
    current.runtime,  -- previous_runtime
    decided.runtime,
    current.model,  -- previous_model
    decided.model,
    decided.model_source,
    decided.model_source in ('restored', 'equivalent', 'default'),  -- model_was_reset
    decided.provider,
    decided.billed_to,
    decided.billing_changed,
    decided.changed and describe_change.action not in ('create_workspace', 'delete_workspace'),  -- needs_restart
    decided.model_deprecated,
    decided.model_sunset_at
  )::workspace.change;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as its caller is told it, but at the version that it was decided on.';
