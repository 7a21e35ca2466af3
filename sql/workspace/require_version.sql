-- Internal.

create or replace function workspace.require_version(current workspace.snapshot, expected_version bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if require_version.expected_version <> (require_version.current).version then
    raise exception using
      errcode = 'PT409',
      message = format(
        'The workspace is at version %s, not at the expected %s.',
        (require_version.current).version, require_version.expected_version
      ),
      detail = jsonb_build_object(
        'code', 'VERSION_CONFLICT',
        'workspace_id', (require_version.current).workspace_id,
        'expected_version', require_version.expected_version,
        'version', (require_version.current).version
      ),
      hint = 'Somebody else changed the workspace. Read it again and decide anew.';
  end if;
end
$$;
comment on function workspace.require_version(workspace.snapshot, bigint) is
  'Internal: raises VERSION_CONFLICT unless the workspace is at the expected version; null expects nothing.';
