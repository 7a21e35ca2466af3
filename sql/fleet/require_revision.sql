-- Internal.

create or replace function fleet.require_revision(revision bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  manifest jsonb;
begin
  if require_revision.revision is null then
    perform registry.invalid_argument('revision', 'is null');
  end if;
  -- || '{}': unpacked here once, not wherever it is used.
  select r.manifest || '{}' into manifest from registry.revisions as r where r.revision = require_revision.revision;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The registry has no revision %s.', require_revision.revision),
      detail = jsonb_build_object('code', 'REVISION_NOT_FOUND', 'revision', require_revision.revision),
      hint = 'Take one that fleet.revisions lists.';
  end if;
  return manifest;
end
$$;
comment on function fleet.require_revision(bigint) is 'Internal: a revision''s manifest. Raises INVALID_ARGUMENT or REVISION_NOT_FOUND.';
