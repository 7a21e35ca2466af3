-- Internal. keyring.seal and keyring.unseal for the same secret of many workspaces: what a call costs, and what it costs to
-- be ready for an error, is paid once and not for each value. The bodies name pgcrypto's schema, see sql/keyring/pgcrypto.sql.

do $$
declare
  pgcrypto text;
begin
  select n.nspname
  into pgcrypto
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto';

  execute format(
    $body$
create or replace function keyring.seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[])
returns bytea[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
  secret constant text := with_key.secret;
  label constant text := ' ' || seal_all.name || E'\n';
  sealed bytea[] := '{}';
begin
  if with_key.key_id is null then
    return array(
      select convert_to(v.val, 'UTF8') from unnest(seal_all.vals) with ordinality as v (val, place) order by v.place
    );
  end if;
  for place in 1 .. cardinality(ws) loop
    sealed := sealed || %I.pgp_sym_encrypt(
      ws[place] || label || vals[place], secret, 's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    );
  end loop;
  return sealed;
end
$function$
    $body$,
    pgcrypto
  );
  execute format(
    $body$
create or replace function keyring.unseal_all(
  with_key keyring.data_key,
  ws uuid[],
  name text,
  sealed bytea[],
  key_ids integer[]
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
  own_key_id constant integer := with_key.key_id;
  secret constant text := with_key.secret;
  suffix constant text := ' ' || unseal_all.name || E'\n';
  label text;
  opened text;
  vals text[] := '{}';
  all_opened boolean := true;
  other integer;
begin
  begin
    for place in 1 .. cardinality(ws) loop
      label := ws[place] || suffix;
      opened := case when key_ids[place] = own_key_id then %I.pgp_sym_decrypt(sealed[place], secret) end;
      -- As keyring.open.
      vals := vals || case when starts_with(opened, label) then
        case when octet_length(sealed[place]) < 208 and get_byte(sealed[place], 15) = octet_length(sealed[place]) - 16
          or keyring.is_whole(sealed[place])
        then
          substr(opened, length(label) + 1)
        end
      end;
    end loop;
  exception
    when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
      or invalid_parameter_value or data_corrupted or array_subscript_error then
      vals := array_fill(null::text, array[cardinality(ws)]);
      all_opened := false;
  end;

  -- What another key sealed, or none. And all of them where something did not open: plpgsql would run the expression above
  -- as a query now (see sql/keyring/tables.sql).
  for other in
    select n.place
    from unnest(unseal_all.sealed, unseal_all.key_ids) with ordinality as n (sealed, key_id, place)
    where n.sealed is not null and (not all_opened or (n.key_id = own_key_id) is not true)
  loop
    vals[other] := keyring.unseal(with_key, ws[other], unseal_all.name, sealed[other], key_ids[other]);
  end loop;
  return vals;
end
$function$
    $body$,
    pgcrypto
  );
end
$$;
comment on function keyring.seal_all(keyring.data_key, uuid[], text, text[]) is
  'Internal: what keyring.seal makes of each workspace''s value; null for null.';
comment on function keyring.unseal_all(keyring.data_key, uuid[], text, bytea[], integer[]) is
  'Internal: what keyring.unseal reads from each workspace''s bytes; null where there are none.';
