-- Internal. Whoever changes the keys calls this first.

create or replace function keyring.lock()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform registry.require_read_committed();

  -- Waits for everybody who is sealing (keyring.hold) and keeps new ones out to the end of the transaction. Who only reads
  -- is not disturbed.
  lock table keyring.keys in exclusive mode;
end
$$;
comment on function keyring.lock() is
  'Internal: keeps everybody else from sealing, and from changing the keys, until the transaction ends. Raises ISOLATION_UNSUPPORTED.';
