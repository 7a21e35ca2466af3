-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

create or replace function keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  label constant text := unseal.ws || ' ' || unseal.name || E'\n';
  fitting keyring.data_key := with_key;
  opened text;
begin
  if unseal.key_id is null then
    return convert_from(unseal.sealed, 'UTF8');
  end if;

  if unseal.key_id is distinct from fitting.key_id then
    fitting := keyring.any_key(unseal.key_id);
  end if;
  opened := keyring.decrypt(unseal.sealed, fitting.secret);
  if starts_with(opened, label) and keyring.is_whole(unseal.sealed) then
    return substr(opened, length(label) + 1);
  end if;
  return null;
exception
  -- Why it does not open is nobody's business (it would be an oracle), and the error could carry bytes into the log.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted or array_subscript_error then
    return null;
end
$$;
comment on function keyring.unseal(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.
with_key: the key to try first; another key of the keyring is fetched by its id.';
