-- Internal. Whoever locks a whole table to see all that was written before it calls this first: above READ COMMITTED a
-- snapshot from before the lock would hide what was written until then.

create or replace function registry.require_read_committed()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = 'PT400',
      message = 'This can only be done at the isolation level READ COMMITTED.',
      detail = jsonb_build_object('code', 'ISOLATION_UNSUPPORTED', 'isolation', current_setting('transaction_isolation')),
      hint = 'Begin the transaction with: begin isolation level read committed.';
  end if;
end
$$;
comment on function registry.require_read_committed() is 'Internal: raises ISOLATION_UNSUPPORTED above READ COMMITTED.';
