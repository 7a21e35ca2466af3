-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

create or replace function keyring.unseal(ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if unseal.key_id is not null then
    return null;  -- Sealed by a key that this keyring does not have.
  end if;
  return convert_from(unseal.sealed, 'UTF8');
exception
  -- The error would carry some of the bytes into the log.
  when character_not_in_repertoire or untranslatable_character then
    return null;
end
$$;
comment on function keyring.unseal(uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.';
