-- Internal.

create or replace function keyring.active_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.state = 'active';
  return keyring.open_key(stored, is_needed => true);
end
$$;
comment on function keyring.active_key() is
  'Internal: the key that seals, opened; null if the keyring has none. Raises ENCRYPTION_KEY_MISSING.';
