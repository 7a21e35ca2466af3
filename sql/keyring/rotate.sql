create or replace function keyring.rotate()
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek();
  active keyring.keys;
  opened keyring.data_key;
begin
  perform keyring.lock();
  select k.* into active from keyring.keys as k where k.state = 'active';
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'The keyring has no key to rotate.',
      detail = jsonb_build_object('code', 'KEYRING_EMPTY'),
      hint = 'Call keyring.init to make the first one.';
  end if;

  -- This very KEK, not runtime_registry.new_kek: one KEK wraps all keys.
  opened := keyring.unwrap(active.id, active.wrapped, kek);
  if opened.key_id is null then
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return keyring.add_key(kek);
end
$$;
comment on function keyring.rotate() is
  'Makes a new active key and retires the one before, which goes on opening what it sealed. Returns the new key''s id.
Call keyring.reseal until it is done, then keyring.retire for the old key.
Errors: ENCRYPTION_KEY_MISSING, KEYRING_EMPTY, ISOLATION_UNSUPPORTED.';
