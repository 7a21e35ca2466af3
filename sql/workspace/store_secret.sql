-- Internal. The workspace's row is locked before.

create or replace function workspace.store_secret(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Sealed before the insert: a plain value must never reach a table or the WAL.
  stored constant keyring.sealed_value := keyring.seal(with_key, store_secret.ws, store_secret.name, store_secret.value);
  stored_at constant timestamptz := clock_timestamp();
begin
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (store_secret.ws, store_secret.name, stored.sealed, stored.key_id, stored_at)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;
  return stored;
end
$$;
comment on function workspace.store_secret(keyring.data_key, uuid, text, text) is
  'Internal: seals a value and stores it as the workspace''s secret of this name.';
