create or replace function keyring.retire(key_id integer)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  state text;
  used bigint;
begin
  if retire.key_id is null then
    perform registry.invalid_argument('key_id', 'is null');
  end if;

  perform keyring.lock();
  select k.state into state from keyring.keys as k where k.id = retire.key_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The keyring has no key %s.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_NOT_FOUND', 'key_id', retire.key_id),
      hint = 'Call keyring.status to see the keys.';
  end if;
  used := (select count(*) from workspace.key_uses(false) as u where u.key_id = retire.key_id);
  if state = 'active' or used > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The key %s is in use.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_IN_USE', 'key_id', retire.key_id, 'state', state, 'values', used),
      hint = 'Make another key active with keyring.rotate, and move to it what this one sealed with keyring.reseal.';
  end if;
  delete from keyring.keys as k where k.id = retire.key_id;
end
$$;
comment on function keyring.retire(integer) is
  'Removes a key that seals nothing any more. What an older backup holds under it stays readable only with that backup''s keyring.
key_id: the key.
Errors: INVALID_ARGUMENT, KEY_NOT_FOUND, KEY_IN_USE (it is active, or a secret or the history refers to it),
ISOLATION_UNSUPPORTED (only at READ COMMITTED is it seen who refers to it).';
