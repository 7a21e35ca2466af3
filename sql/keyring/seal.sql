-- Internal.

create or replace function keyring.seal(ws uuid, name text, value text)
returns keyring.sealed_value
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
end
$$;
comment on function keyring.seal(uuid, text, text) is
  'Internal: the bytes to store for a workspace''s secret of this name.';
