-- Internal. Whoever changes workspaces calls this first: registry, then keyring, then workspaces is the order of all locks.

create or replace function workspace.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') = 'read committed' then
    -- registry.hold and keyring.hold in one statement.
    lock table registry.state, keyring.keys in row share mode;
  else
    -- They lock rows, too: that of the registry before the table of keys, as keyring.init does.
    perform registry.hold();
    perform keyring.hold();
  end if;
end
$$;
comment on function workspace.hold() is
  'Internal: keeps the registry and the keyring as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older.';
