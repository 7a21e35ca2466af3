-- Internal. The secret itself is written before; the workspace's row is locked.

create or replace function workspace.write_secret_change(
  current workspace.snapshot,
  secret text,
  action text,
  changed boolean
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  after workspace.snapshot := write_secret_change.current;
  decided workspace.decision;
  described workspace.changes;
  previous registry.routing;
  routing registry.routing;
  moment constant timestamptz := clock_timestamp();
begin
  -- The pair stays, but credentials may have another provider serve it.
  after.credentials := array_remove(current.credentials, write_secret_change.secret);
  if write_secret_change.action = 'set_secret' then
    after.credentials := after.credentials || write_secret_change.secret;
  end if;
  previous := registry.route(current.runtime, current.model, current.credentials);
  routing := registry.route(after.runtime, after.model, after.credentials);

  decided.runtime := after.runtime;
  decided.model := after.model;
  decided.model_source := case when after.sealed is null then 'none' else 'kept' end;
  decided.provider := routing.provider;
  decided.billed_to := routing.billed_to;
  decided.model_deprecated := routing.deprecated;
  decided.model_sunset_at := routing.sunset_at;
  described := workspace.describe_change(after, decided, write_secret_change.action);
  described.changed := write_secret_change.changed;
  described.billing_changed := described.changed and coalesce(previous.billed_to <> routing.billed_to, false);
  described.secret := write_secret_change.secret;

  if described.changed then
    described.version := current.version + 1;
    update workspace.workspaces as w
    set version = described.version, updated_at = moment
    where w.id = current.workspace_id;
    -- The model stays, readable or not.
    after.model_is_unreadable := false;
    perform workspace.record_change(described, after, (after.sealed, after.key_id), false, null);
  end if;
  return workspace.change_of(described, current.model, current.model);
end
$$;
comment on function workspace.write_secret_change(workspace.snapshot, text, text, boolean) is
  'Internal: records that a secret besides the model was written or removed, and says what that changed.';
