-- pgcrypto may be in any schema: the bodies below name the one where it is. (Functions in the language sql would follow it
-- to another, but cost several times as much in every transaction.)
-- The key is 32 random bytes, so iterating over it (the default S2K, 0.3 ms a call) would protect nothing.

do $$
declare
  pgcrypto text;
begin
  if not exists (select from pg_catalog.pg_extension as e where e.extname = 'pgcrypto') then
    create schema pgcrypto;
    comment on schema pgcrypto is 'The extension pgcrypto, for Runtime Registry.';
    create extension pgcrypto with schema pgcrypto;
  end if;
  select n.nspname
  into pgcrypto
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto';

  execute format(
    $body$
create or replace function keyring.encrypt(value text, key text)
returns bytea
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return %I.pgp_sym_encrypt(encrypt.value, encrypt.key, 's2k-mode=1, cipher-algo=aes256, compress-algo=0');
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.open(message bytea, key text, label text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
  opened text;
begin
  opened := %I.pgp_sym_decrypt(open.message, open.key);
  -- A short message, and most are, says in one byte how long it is: that needs no call.
  return case when starts_with(opened, open.label) and (
    octet_length(open.message) < 208 and get_byte(open.message, 15) = octet_length(open.message) - 16
    or keyring.is_whole(open.message)
  ) then
    substr(opened, length(open.label) + 1)
  end;
exception
  -- Why it does not open is nobody's business (it would be an oracle), and the error could carry bytes into the log.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted or array_subscript_error then
    return null;
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.random_key()
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return encode(%I.gen_random_bytes(32), 'hex');
end
$function$
    $body$,
    pgcrypto
  );
end
$$;
comment on function keyring.encrypt(text, text) is 'Internal: an OpenPGP message, as gpg --decrypt opens it.';
comment on function keyring.open(bytea, text, text) is
  'Internal: what stands after the label in what keyring.encrypt was given; null for any other bytes, key or label.';
comment on function keyring.random_key() is 'Internal: 32 random bytes in hex.';
