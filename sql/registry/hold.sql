-- Internal. Whoever decides by the registry calls this first, before any workspace is locked.

create or replace function registry.hold()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Held to the end of the transaction. It conflicts with the exclusive lock that a load takes before it writes, and
  -- with nothing else: a pair is never decided on a registry that is being replaced, and a load judges the pairs
  -- that are there only when none is being written. Row locks would have every call write to the same few rows, and
  -- locking the workspace first would deadlock with a load.
  lock table registry.state in row share mode;

  -- Later statements of a READ COMMITTED transaction see what the load that made us wait has committed. Above it they
  -- would decide by the snapshot's registry, so a snapshot older than the current one must fail with 40001.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from registry.state as s for share;
  end if;
end
$$;
comment on function registry.hold() is
  'Internal: keeps the registry as it is until the transaction ends. Raises 40001 if the transaction''s snapshot is older than the registry.';
