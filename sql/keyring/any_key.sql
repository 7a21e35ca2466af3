-- Internal.

create or replace function keyring.any_key(key_id integer)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.id = any_key.key_id;
  return keyring.open_key(stored, is_needed => false);
end
$$;
comment on function keyring.any_key(integer) is
  'Internal: a key of the keyring, active or retired, opened; null if there is none or the KEK does not fit.';
