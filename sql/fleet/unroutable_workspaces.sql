-- Internal.

create or replace function fleet.unroutable_workspaces(with_key keyring.data_key)
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored record;
  model text;
  pair text;
  routable jsonb := '{}'::jsonb;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql). A fleet has many workspaces and few
  -- distinct pairs: each pair is routed once.
  for stored in
    select w.id, w.runtime, s.key, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  loop
    model := keyring.unseal(with_key, stored.id, stored.key, stored.sealed, stored.key_id);
    pair := stored.runtime || E'\n' || model;
    if not routable ? pair then
      routable := routable
        || jsonb_build_object(pair, (registry.route(stored.runtime, model, '{}')).routable);
    end if;
    if model is null or not (routable -> pair)::boolean then
      return next stored.id;
    end if;
  end loop;
end
$$;
comment on function fleet.unroutable_workspaces(keyring.data_key) is
  'Internal: the workspaces whose model is not routable on their runtime, or cannot be read.';
