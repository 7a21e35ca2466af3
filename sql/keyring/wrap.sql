-- Internal. The id goes inside, so that a wrapped key opens as no other key.

create or replace function keyring.wrap(key keyring.data_key, kek text)
returns bytea
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return keyring.encrypt(format(E'runtime-registry key %s\n%s', key.key_id, key.secret), wrap.kek);
end
$$;
comment on function keyring.wrap(keyring.data_key, text) is 'Internal: a data key, sealed with the KEK.';

create or replace function keyring.unwrap(key_id integer, wrapped bytea, kek text)
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  label constant text := format(E'runtime-registry key %s\n', unwrap.key_id);
  opened text;
begin
  opened := keyring.decrypt(unwrap.wrapped, unwrap.kek);
  if starts_with(opened, label) and keyring.is_whole(unwrap.wrapped) then
    return (unwrap.key_id, substr(opened, length(label) + 1))::keyring.data_key;
  end if;
  return null;
exception
  -- Why it does not open is nobody's business: it would be an oracle.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted or array_subscript_error then
    return null;
end
$$;
comment on function keyring.unwrap(integer, bytea, text) is 'Internal: a wrapped data key, opened; null if the KEK does not fit.';
