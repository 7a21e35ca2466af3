-- Internal.

create or replace function keyring.session_kek(setting text default 'runtime_registry.kek')
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := current_setting(session_kek.setting, true);
begin
  if kek is null or kek = '' then
    perform keyring.key_missing(format('is not set (%s)', session_kek.setting));
  end if;
  return kek;
end
$$;
comment on function keyring.session_kek(text) is
  'Internal: the key-encryption key that the session brought. Raises ENCRYPTION_KEY_MISSING.';
