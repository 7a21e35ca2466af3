-- Internal. Whose secret it is stands inside the message, before the value: sealed bytes that are moved to another row or
-- name do not open. A name has no line break, so no other workspace and name make the same first line.

create or replace function keyring.seal(with_key keyring.data_key, ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if with_key.key_id is null then
    return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
  end if;
  return (
    keyring.encrypt(seal.ws || ' ' || seal.name || E'\n' || seal.value, with_key.secret), with_key.key_id
  )::keyring.sealed_value;
end
$$;
comment on function keyring.seal(keyring.data_key, uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name, sealed with the key; plain without one.';
