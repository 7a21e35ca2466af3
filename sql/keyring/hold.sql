-- Internal. Whoever seals calls this first: after registry.hold, before any workspace is locked.

create or replace function keyring.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Held to the end of the transaction, against the exclusive lock of those who change the keys: a key cannot be removed
  -- while somebody seals with it.
  lock table keyring.keys in row share mode;

  -- As in registry.hold: a snapshot from before a change of keys would seal with a key that may be gone.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from keyring.keys as k for share;
  end if;
end
$$;
comment on function keyring.hold() is
  'Internal: keeps the keys as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older than they are.';
