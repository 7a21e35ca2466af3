-- Internal. The workspace's row is locked before, or new. All of it or, if it fails, nothing.

create or replace function workspace.record_change(
  described workspace.changes,
  secret_name text default null,
  secret keyring.sealed_value default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  actor constant text := workspace.actor();
  changed_at constant timestamptz := clock_timestamp();
  txid constant xid8 := pg_current_xact_id();
begin
  -- One statement: three would cost much more. (With the update at its end it can be distributed, too.)
  with stored as (
    insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
    select described.workspace_id, record_change.secret_name, secret.sealed, secret.key_id, changed_at
    where record_change.secret_name is not null
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed,
      key_id = excluded.key_id,
      updated_at = excluded.updated_at
  ),
  recorded as (
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed, previous_key_id, sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid, secret,
      model_deprecated, model_sunset_at, position, name
    )
    values (
      described.workspace_id, described.version, described.action, described.changed,
      described.previous_runtime, described.runtime,
      described.previous_sealed, described.previous_key_id, described.sealed, described.key_id,
      described.model_source, described.provider, described.billed_to, described.billing_changed,
      described.restore, actor, described.request_id, changed_at, txid, described.secret,
      described.model_deprecated, described.model_sunset_at, described.position, described.name
    )
  )
  -- Not a workspace that this very change has made, or deleted.
  update workspace.workspaces as w
  set
    name = coalesce(described.name, w.name),
    runtime = described.runtime,
    version = described.version,
    updated_at = changed_at,
    position = described.position
  where w.id = described.workspace_id and w.version < described.version;

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function workspace.record_change(workspace.changes, text, keyring.sealed_value) is
  'Internal: writes a change: the workspace''s secret of this name (null: none), its own row and the history''s.
With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';
