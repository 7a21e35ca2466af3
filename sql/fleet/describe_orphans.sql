-- Internal.

create or replace function fleet.describe_orphans(pairs fleet.pair[])
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with reset as materialized (
      select p.runtime, p.model, chosen.model as reset_model, chosen.model_source as reset_source
      from unnest(describe_orphans.pairs) as p
      cross join lateral fleet.reset_of(p.runtime, p.model) as chosen
    )
    select coalesce(
      jsonb_agg(
        jsonb_build_object(
          'workspace_id', s.workspace_id, 'runtime', s.runtime, 'model', s.model,
          'reset_model', r.reset_model, 'reset_source', r.reset_source
        )
        order by s.workspace_id
      ),
      '[]'
    )
    from fleet.stored_models(array(select distinct p.runtime from unnest(describe_orphans.pairs) as p)) as s
    join reset as r on r.runtime = s.runtime and r.model = s.model
  );
end
$$;
comment on function fleet.describe_orphans(fleet.pair[]) is
  'Internal: the workspaces that have one of these pairs, and what a reset would give them.';
