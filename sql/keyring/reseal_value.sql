-- Internal.

create or replace function keyring.reseal_value(
  with_key keyring.data_key,
  ws uuid,
  name text,
  sealed bytea,
  key_id integer
)
returns keyring.sealed_value
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  value text;
begin
  if reseal_value.key_id is not distinct from with_key.key_id then
    return (reseal_value.sealed, reseal_value.key_id)::keyring.sealed_value;
  end if;
  value := keyring.unseal(with_key, reseal_value.ws, reseal_value.name, reseal_value.sealed, reseal_value.key_id);
  if value is null then
    return null;
  end if;
  return keyring.seal(with_key, reseal_value.ws, reseal_value.name, value);
end
$$;
comment on function keyring.reseal_value(keyring.data_key, uuid, text, bytea, integer) is
  'Internal: a sealed value, sealed by this key; null if it cannot be read.';
