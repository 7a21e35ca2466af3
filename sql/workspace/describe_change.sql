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
begin
  described.workspace_id := current.workspace_id;
  described.version := current.version;
  described.action := describe_change.action;
  described.changed := decided.runtime is distinct from current.runtime
    or decided.model is distinct from current.model
    or current.model_is_unreadable;
  described.previous_runtime := current.runtime;
  described.runtime := decided.runtime;
  if not current.model_is_unreadable then
    described.previous_sealed := current.sealed;
    described.previous_key_id := current.key_id;
  end if;
  described.model_source := decided.model_source;
  described.provider := (decided.routing).provider;
  described.billed_to := (decided.routing).billed_to;
  described.billing_changed := described.changed and current.model is not null and coalesce(
    (registry.route(current.runtime, current.model, current.credentials)).billed_to <> described.billed_to, false
  );
  described.restore := false;
  described.model_deprecated := coalesce((decided.routing).deprecated, false);
  described.model_sunset_at := (decided.routing).sunset_at;
  return described;
end
$$;
comment on function workspace.describe_change(workspace.snapshot, workspace.decision, text) is
  'Internal: what a decision changes, as a row of changes that is not written yet: its version is the current one, and the model after is missing.';
