-- Internal. It proves that the KEK fits before anything is written: opening the active key is the check.

create or replace function keyring.open_key(stored keyring.keys, is_needed boolean)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key keyring.data_key;
begin
  if stored.id is null then
    return null;
  end if;
  key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.kek', true));
  -- While the KEK is being changed (keyring.rewrap), sessions bring the new one along: one of the two fits, before and after.
  if key.key_id is null then
    key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.new_kek', true));
  end if;
  if key.key_id is null and open_key.is_needed then
    perform keyring.session_kek();
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return key;
end
$$;
comment on function keyring.open_key(keyring.keys, boolean) is
  'Internal: a key of the keyring, opened; null for null.
Where the session has no key-encryption key that fits: null too or, if the key is needed, ENCRYPTION_KEY_MISSING.';
