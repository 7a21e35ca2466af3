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

  return workspace.write_change(
    current, decided, write_secret_change.action, secret => write_secret_change.secret, secret_value => stored
  );
end
$$;
comment on function workspace.write_secret_change(workspace.snapshot, text, text, boolean, keyring.sealed_value) is
  'Internal: stores a secret besides the model (null: there is nothing to store), records that, and says what it changed.';
