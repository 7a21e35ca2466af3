-- Internal. The workspace's row is locked before; a secret that goes is gone.

create or replace function workspace.write_secret_change(
  current workspace.snapshot,
  secret text,
  action text,
  changed boolean,
  stored keyring.sealed_value default null
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
begin
  -- The pair stays, but credentials may have another provider serve it.
  after.credentials := array_remove(current.credentials, write_secret_change.secret);
  if write_secret_change.action = 'set_secret' then
    after.credentials := after.credentials || write_secret_change.secret;
  end if;
  previous := registry.route(current.runtime, current.model, current.credentials);

  -- The model stays, readable or not.
  after.model_is_unreadable := false;
  decided.runtime := after.runtime;
  decided.model := after.model;
  decided.model_source := case when after.sealed is null then 'none' else 'kept' end;
  decided.routing := registry.route(after.runtime, after.model, after.credentials);
  described := workspace.describe_change(after, decided, write_secret_change.action);
  described.changed := write_secret_change.changed;
  described.billing_changed := described.changed and coalesce(previous.billed_to <> described.billed_to, false);
  described.sealed := after.sealed;
  described.key_id := after.key_id;
  described.secret := write_secret_change.secret;

  if described.changed then
    described.version := current.version + 1;
    perform workspace.record_change(described, case when stored.sealed is not null then described.secret end, stored);
  end if;
  return workspace.change_of(described, current.model, current.model);
end
$$;
comment on function workspace.write_secret_change(workspace.snapshot, text, text, boolean, keyring.sealed_value) is
  'Internal: stores a secret besides the model (null: there is nothing to store), records that, and says what it changed.';
