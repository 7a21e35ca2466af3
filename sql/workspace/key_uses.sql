-- Internal. What refers to a key of the keyring is stored here.

create or replace function workspace.key_uses(verify boolean)
returns setof workspace.key_use
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key constant keyring.data_key := case when key_uses.verify then keyring.active_key() end;
  stored record;
  counted workspace.key_use;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select s.workspace_id, s.key as name, s.sealed, s.key_id, true as is_secret
    from workspace.secrets as s
    union all
    select c.workspace_id, 'MODEL', c.sealed, c.key_id, false
    from workspace.changes as c
    where c.sealed is not null
    union all
    select c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id, false
    from workspace.changes as c
    where c.previous_sealed is not null
  loop
    counted.key_id := stored.key_id;
    counted.secrets := stored.is_secret::integer;
    counted.history := (not stored.is_secret)::integer;
    counted.unreadable := (
      key_uses.verify
      and keyring.unseal(with_key, stored.workspace_id, stored.name, stored.sealed, stored.key_id) is null
    )::integer;
    return next counted;
  end loop;
end
$$;
comment on function workspace.key_uses(boolean) is
  'Internal: a row for every value that is stored: which key sealed it and, with verify, whether it opens.';
