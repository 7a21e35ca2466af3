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
  secret constant text := keyring.open(unwrap.wrapped, unwrap.kek, format(E'runtime-registry key %s\n', unwrap.key_id));
begin
  return (case when secret is not null then unwrap.key_id end, secret)::keyring.data_key;
end
$$;
comment on function keyring.unwrap(integer, bytea, text) is
  'Internal: a wrapped data key, opened; all null if the KEK does not fit.';
