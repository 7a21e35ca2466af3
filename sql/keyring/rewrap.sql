create or replace function keyring.rewrap()
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek();
  new_kek constant text := keyring.strong_kek('runtime_registry.new_kek');
  wrapped keyring.keys;
  key keyring.data_key;
  rewrapped bytea;
  keys bigint := 0;
begin
  perform keyring.lock();
  for wrapped in select k.* from keyring.keys as k order by k.id loop
    key := keyring.unwrap(wrapped.id, wrapped.wrapped, kek);
    if key.key_id is null then
      perform keyring.key_missing('does not fit this keyring');
    end if;
    rewrapped := keyring.wrap(key, new_kek);
    update keyring.keys as k set wrapped = rewrapped where k.id = key.key_id;
    keys := keys + 1;
  end loop;
  return keys;
end
$$;
comment on function keyring.rewrap() is
  'Changes the key-encryption key.
It opens every key with the setting runtime_registry.kek and wraps it with runtime_registry.new_kek (32 random bytes in base64 or hex). No
secret is touched. Returns how many keys there are.
All or nothing. Sessions that have both settings work before and after, so nobody needs to stop: give them both, rewrap, then give them the new
one as runtime_registry.kek. A KEK is a setting, never an argument: arguments end up in logs.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, ISOLATION_UNSUPPORTED.';
