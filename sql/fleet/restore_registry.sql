create or replace function fleet.restore_registry(
  revision bigint,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.replace_registry(
    fleet.require_revision(restore_registry.revision),
    restore_registry.on_orphan,
    restore_registry.dry_run,
    restore_registry.revision
  );
end
$$;
comment on function fleet.restore_registry(bigint, text, boolean) is
  'Loads an earlier revision''s manifest again, as a new revision; nothing if it is the current one''s.
revision: its number, see fleet.revisions. on_orphan, dry_run, the result and the locks are those of fleet.load_registry.
Errors: REVISION_NOT_FOUND, and those of fleet.load_registry.';
