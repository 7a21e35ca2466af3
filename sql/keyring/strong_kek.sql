-- Internal. Only where a KEK is taken into use; afterwards it fits or it does not.

create or replace function keyring.strong_kek(setting text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  kek constant text := keyring.session_kek(strong_kek.setting);
  bytes bytea;
begin
  begin
    bytes := decode(kek, case when length(kek) = 64 then 'hex' else 'base64' end);
  exception
    when invalid_parameter_value then
      null;  -- The error would show the KEK.
  end;
  -- No S2K could save a passphrase: the messages are made without iterations.
  if octet_length(bytes) is distinct from 32 then
    raise exception using
      errcode = 'PT400',
      message = format('The setting %s is no key-encryption key.', strong_kek.setting),
      detail = jsonb_build_object(
        'code', 'INVALID_ARGUMENT',
        'argument', strong_kek.setting,
        'problem', 'must be 32 random bytes in base64 or hex'
      ),
      hint = 'Run openssl rand -base64 32 to make one.';
  end if;
  return kek;
end
$$;
comment on function keyring.strong_kek(text) is
  'Internal: the session''s KEK if it has the form of one. Raises ENCRYPTION_KEY_MISSING or INVALID_ARGUMENT.';
