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
create or replace function keyring.seal(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  if with_key.key_id is null then
    return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
  end if;
  -- Whose secret it is stands inside the message, before the value: sealed bytes that are moved to another row or name do
  -- not open. A name has no line break, so no other workspace and name make the same first line.
  return (
    %I.pgp_sym_encrypt(
      seal.ws || ' ' || seal.name || E'\n' || seal.value,
      with_key.secret,
      's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    ),
    with_key.key_id
  )::keyring.sealed_value;
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.unlock(
  active keyring.keys,
  key_is_needed boolean,
  ws uuid,
  name text,
  sealed bytea,
  key_id integer
)
returns keyring.unlocked
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
  key_label constant text := 'runtime-registry key ' || active.id || E'\n';
  label constant text := unlock.ws || ' ' || unlock.name || E'\n';
  with_key keyring.data_key;
  opened_key text;
  opened text;
begin
  -- Nearly always the active key sealed the value, both messages are short, and both open: so they are opened here, for
  -- the six calls below cost a twentieth of a whole change. Whatever is not so is left to keyring.open.
  if active.id = unlock.key_id then
    begin
      if octet_length(active.wrapped) < 208
        and octet_length(unlock.sealed) < 208
        and get_byte(active.wrapped, 15) = octet_length(active.wrapped) - 16
        and get_byte(unlock.sealed, 15) = octet_length(unlock.sealed) - 16
      then
        opened_key := %1$I.pgp_sym_decrypt(active.wrapped, current_setting('runtime_registry.kek', true));
        if starts_with(opened_key, key_label) then
          with_key := (active.id, substr(opened_key, length(key_label) + 1));
          opened := %1$I.pgp_sym_decrypt(unlock.sealed, with_key.secret);
          if starts_with(opened, label) then
            return (with_key, substr(opened, length(label) + 1))::keyring.unlocked;
          end if;
        end if;
      end if;
    exception
      when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
        or invalid_parameter_value or data_corrupted or array_subscript_error then
    end;
  end if;

  with_key := keyring.open_key(active, unlock.key_is_needed);
  if unlock.sealed is not null then
    opened := keyring.unseal(with_key, unlock.ws, unlock.name, unlock.sealed, unlock.key_id);
  else
    opened := null;
  end if;
  return (with_key, opened)::keyring.unlocked;
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
comment on function keyring.seal(keyring.data_key, uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name, sealed with the key; plain without one.';
comment on function keyring.unlock(keyring.keys, boolean, uuid, text, bytea, integer) is
  'Internal: a key of the keyring, opened as by keyring.open_key, and the value of a workspace''s secret of this name, as by keyring.unseal.';
comment on function keyring.random_key() is 'Internal: 32 random bytes in hex.';
