-- Internal. For those who only take something away: a lost KEK must not keep a model in its place.

create or replace function keyring.usable_key()
returns keyring.data_key
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.state = 'active';
  return keyring.open_key(stored, is_needed => false);
end
$$;
comment on function keyring.usable_key() is
  'Internal: the key that seals, opened; null if the keyring has none or the session no KEK that fits.';
