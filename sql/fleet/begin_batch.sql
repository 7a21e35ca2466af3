-- Internal. What move and reset_orphans begin with.

create or replace function fleet.begin_batch(batch integer, dry_run boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.check_batch(begin_batch.batch);
  if begin_batch.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  -- The workspaces are chosen, locked and read by statements of their own: each has to see what was committed before it.
  perform registry.require_read_committed();
  if not begin_batch.dry_run then
    perform workspace.hold();
  end if;
end
$$;
comment on function fleet.begin_batch(integer, boolean) is
  'Internal: checks the arguments and, unless nothing is to be written, holds the registry and the keyring.';
