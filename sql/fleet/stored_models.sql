-- Internal.

create or replace function fleet.stored_models(of_runtimes text[] default null)
returns setof fleet.stored_model
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where stored_models.of_runtimes is null or w.runtime = any (stored_models.of_runtimes)
  loop
    return next (
      stored.id, stored.runtime, keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id)
    )::fleet.stored_model;
  end loop;
end
$$;
comment on function fleet.stored_models(text[]) is
  'Internal: every workspace that has a model, on these runtimes (null: on all), and the model.';
