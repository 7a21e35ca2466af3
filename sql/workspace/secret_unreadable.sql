-- Internal.

create or replace function workspace.secret_unreadable(ws uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT500',
    message = 'The model of this workspace cannot be read.',
    detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', secret_unreadable.ws),
    hint = 'Name a model when you change the runtime, or call workspace.set_model or workspace.clear_model: they replace it.';
end
$$;
comment on function workspace.secret_unreadable(uuid) is 'Internal: raises SECRET_UNREADABLE.';
