create or replace function keyring.opens()
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform keyring.active_key();
  return true;
exception
  when sqlstate 'PT500' then
    return false;
end
$$;
comment on function keyring.opens() is
  'Whether this session can seal and open secrets: the KEK that it brought fits, or the keyring has no key.';
