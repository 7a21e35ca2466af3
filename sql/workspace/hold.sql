-- Internal. Whoever changes workspaces calls this first: registry, then keyring, then workspaces is the order of all locks.

create or replace function workspace.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- registry.hold and keyring.hold in one statement; above READ COMMITTED they do more.
  lock table registry.state, keyring.keys in row share mode;
  if current_setting('transaction_isolation') <> 'read committed' then
    perform registry.hold();
    perform keyring.hold();
  end if;
end
$$;
comment on function workspace.hold() is
  'Internal: keeps the registry and the keyring as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older.';
