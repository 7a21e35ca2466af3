-- Internal.

create or replace function workspace.workspace_not_found(ws uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if workspace_not_found.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;
  raise exception using
    errcode = 'PT404',
    message = format('There is no workspace %s.', workspace_not_found.ws),
    detail = jsonb_build_object('code', 'WORKSPACE_NOT_FOUND', 'workspace_id', workspace_not_found.ws),
    hint = 'It was deleted, or never created; workspace.history shows which.';
end
$$;
comment on function workspace.workspace_not_found(uuid) is 'Internal: raises WORKSPACE_NOT_FOUND; INVALID_ARGUMENT for null.';
