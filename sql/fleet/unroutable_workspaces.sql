-- Internal.

create or replace function fleet.unroutable_workspaces()
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A fleet has many workspaces and few distinct pairs: each pair is routed once.
  return query
    with stored as materialized (
      select w.id, w.runtime, keyring.unseal(w.id, s.key, s.sealed, s.key_id) as model
      from workspace.workspaces as w
      join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    ),
    routed as materialized (
      select pair.runtime, pair.model, (registry.route(pair.runtime, pair.model, '{}')).routable as is_routable
      from (select distinct s.runtime, s.model from stored as s) as pair
    )
    select s.id
    from stored as s
    left join routed as r on r.runtime = s.runtime and r.model = s.model
    where r.is_routable is not true;
end
$$;
comment on function fleet.unroutable_workspaces() is
  'Internal: the workspaces whose model is not routable on their runtime, or cannot be read.';
