-- Internal. While the KEK is being changed (keyring.rewrap), sessions bring the new one along as runtime_registry.new_kek:
-- one of the two fits, before and after.

create or replace function keyring.open_key(stored keyring.keys)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key keyring.data_key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.kek', true));
begin
  if key.key_id is null then
    key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.new_kek', true));
  end if;
  return key;
end
$$;
comment on function keyring.open_key(keyring.keys) is
  'Internal: a key of the keyring, opened; null if the session has no key-encryption key that fits.';
