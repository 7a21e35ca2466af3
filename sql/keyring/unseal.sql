-- Internal. Null means unreadable, never "no secret": callers ask only where there are bytes.

create or replace function keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fitting keyring.data_key := with_key;
begin
  if unseal.key_id is null then
    begin
      return convert_from(unseal.sealed, 'UTF8');
    exception
      when character_not_in_repertoire then
        return null;
    end;
  end if;
  if unseal.key_id is distinct from fitting.key_id then
    fitting := keyring.any_key(unseal.key_id);
  end if;
  return keyring.open(unseal.sealed, fitting.secret, unseal.ws || ' ' || unseal.name || E'\n');
end
$$;
comment on function keyring.unseal(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.
with_key: the key to try first; another key of the keyring is fetched by its id.';
