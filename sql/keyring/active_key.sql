-- Internal. It proves that the KEK fits before anything is written: opening the active key is the check.

create or replace function keyring.active_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  active keyring.keys;
  key keyring.data_key;
begin
  select k.* into active from keyring.keys as k where k.state = 'active';
  if not found then
    return null;
  end if;
  key := keyring.open_key(active);
  if key.key_id is null then
    perform keyring.session_kek();
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return key;
end
$$;
comment on function keyring.active_key() is
  'Internal: the key that seals, opened; null if the keyring has none. Raises ENCRYPTION_KEY_MISSING.';
