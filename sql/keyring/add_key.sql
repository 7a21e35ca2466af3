-- Internal. The caller holds the exclusive lock on keyring.keys and has proved the KEK.

create or replace function keyring.add_key(kek text)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moment constant timestamptz := clock_timestamp();
  key keyring.data_key;
  wrapped bytea;
begin
  update keyring.keys as k set state = 'retired', retired_at = moment where k.state = 'active';

  key.key_id := nextval('keyring.key_ids');
  key.secret := keyring.random_key();
  wrapped := keyring.wrap(key, add_key.kek);
  insert into keyring.keys (id, wrapped, state, created_at)
  values (key.key_id, wrapped, 'active', moment);
  return key.key_id;
end
$$;
comment on function keyring.add_key(text) is 'Internal: a new active key, wrapped by the KEK; the one before is retired.';
