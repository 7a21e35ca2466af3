-- Internal.

create or replace function workspace.version_conflict(ws uuid, version bigint, expected_version bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT409',
    message = format(
      'The workspace is at version %s, not at the expected %s.',
      version_conflict.version,
      version_conflict.expected_version
    ),
    detail = jsonb_build_object(
      'code', 'VERSION_CONFLICT',
      'workspace_id', version_conflict.ws,
      'expected_version', version_conflict.expected_version,
      'version', version_conflict.version
    ),
    hint = 'Somebody else changed the workspace. Read it again and decide anew.';
end
$$;
comment on function workspace.version_conflict(uuid, bigint, bigint) is 'Internal: raises VERSION_CONFLICT.';
