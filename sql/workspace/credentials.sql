-- Internal.

create or replace function workspace.credentials(ws uuid)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select s.key::text
    from workspace.secrets as s
    where s.workspace_id = credentials.ws and s.key <> 'MODEL'
    order by s.key
  );
end
$$;
comment on function workspace.credentials(uuid) is
  'Internal: the names of a workspace''s secrets besides MODEL. Where several providers list a model, they may decide who serves it.';
