create or replace function fleet.overview()
returns setof fleet.overview_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select w.runtime::text, coalesce(origin.model_source, newest.model_source), count(*)
    from workspace.workspaces as w
    join workspace.changes as newest on newest.workspace_id = w.id and newest.version = w.version
    -- A model that was kept came from an earlier change, if that was not pruned.
    left join lateral (
      select c.model_source
      from workspace.changes as c
      where newest.model_source = 'kept'
        and c.workspace_id = w.id
        and c.model_source <> 'kept'
      order by c.version desc
      limit 1
    ) as origin on true
    group by 1, 2
    order by 1, 2;
end
$$;
comment on function fleet.overview() is
  'How many workspaces there are on each runtime, by where their model came from.
Every workspace is counted: seconds, where there are millions. Nothing is opened, and nobody has to wait for it.';
