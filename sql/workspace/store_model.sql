-- Internal. The workspace's row is locked before.

create or replace function workspace.store_model(ws uuid, model text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Sealed before the insert: a plain value must never reach a table or the WAL.
  stored constant keyring.sealed_value := keyring.seal(store_model.ws, 'MODEL', store_model.model);
  stored_at constant timestamptz := clock_timestamp();
begin
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (store_model.ws, 'MODEL', stored.sealed, stored.key_id, stored_at)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;
  return stored;
end
$$;
comment on function workspace.store_model(uuid, text) is 'Internal: seals a model and stores it as the workspace''s secret.';
