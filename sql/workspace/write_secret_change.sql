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
  decided workspace.decision;
  described workspace.changes;
  billed_before text;
  -- What set_secret has not stored yet is not among them, and what delete_secret has deleted is not any more.
  credentials constant text[] := workspace.credentials(current.workspace_id);
  with_it constant text[] := array_remove(credentials, write_secret_change.secret) || write_secret_change.secret;
  is_set constant boolean := write_secret_change.action = 'set_secret';
begin
  -- The pair stays, readable or not, but credentials may have another provider serve it.
  decided := workspace.keep_pair(current, case when is_set then with_it else credentials end);
  decided.changed := write_secret_change.changed;
  billed_before := (
    registry.route(current.runtime, current.model, case when is_set then credentials else with_it end)
  ).billed_to;
  decided.billing_changed := decided.changed and coalesce(billed_before <> decided.billed_to, false);

  described := workspace.describe_change(current, decided, write_secret_change.action);
  described.previous_sealed := current.sealed;
  described.previous_key_id := current.key_id;
  described.sealed := current.sealed;
  described.key_id := current.key_id;
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
