-- Internal.

create or replace function fleet.find_orphans(of_runtime text, after uuid, batch integer)
returns setof fleet.orphan
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
  model text;
  pair text;
  place integer;
  found_so_far integer := 0;
  orphan fleet.orphan;

  -- As in fleet.change_batch.
  places jsonb := '{}';
  routable boolean[] := '{}';
  resets workspace.decision[] := '{}';
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where (find_orphans.of_runtime is null or w.runtime = find_orphans.of_runtime)
      and w.id >= coalesce(find_orphans.after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from find_orphans.after
    order by w.id
  loop
    model := keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id);
    if model is not null then
      pair := stored.runtime || E'\n' || model;
      place := (places -> pair)::integer;
      if place is null then
        place := cardinality(routable) + 1;
        if place % 1000 = 0 then
          places := '{}';
        end if;
        places := places || jsonb_build_object(pair, place);
        routable := routable || (registry.route(stored.runtime, model, '{}')).routable;
        resets := resets || case when not routable[place] then fleet.reset_of(stored.runtime, model) end;
      end if;
      continue when routable[place];
    end if;

    orphan.workspace_id := stored.id;
    orphan.runtime := stored.runtime;
    orphan.model := model;
    orphan.problem := case when model is null then 'unreadable' else 'not registered' end;
    orphan.reset_model := case when model is not null then resets[place].model end;
    orphan.reset_source := case when model is not null then resets[place].model_source end;
    return next orphan;
    found_so_far := found_so_far + 1;
    exit when found_so_far = find_orphans.batch;
  end loop;
end
$$;
comment on function fleet.find_orphans(text, uuid, integer) is
  'Internal: the first workspaces, by id, whose model is not routable on their runtime or cannot be read; null arguments mean all.';
