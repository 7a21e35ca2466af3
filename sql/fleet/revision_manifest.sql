create or replace function fleet.revision_manifest(revision bigint default null)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.require_revision(
    coalesce(revision_manifest.revision, (select s.revision from registry.state as s))
  );
end
$$;
comment on function fleet.revision_manifest(bigint) is
  'The manifest of a revision, as it can be loaded again.
revision: its number, see fleet.revisions; null: the current one.
Errors: REVISION_NOT_FOUND, also where nothing was ever loaded.';
