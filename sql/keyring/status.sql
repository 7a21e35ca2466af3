create or replace function keyring.status(verify boolean default false)
returns setof keyring.status_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if status.verify is null then
    perform registry.invalid_argument('verify', 'is null');
  end if;

  return query
    select
      coalesce(k.id, u.key_id),
      case when k.id is null and u.key_id is null then 'plain' else coalesce(k.state, 'missing') end,
      k.created_at,
      k.retired_at,
      coalesce(sum(u.secrets), 0)::bigint,
      coalesce(sum(u.history), 0)::bigint,
      case when status.verify then coalesce(sum(u.unreadable), 0)::bigint end
    from keyring.keys as k
    full join workspace.key_uses(status.verify) as u on u.key_id = k.id
    group by k.id, u.key_id, k.state, k.created_at, k.retired_at
    order by 1 nulls first;
end
$$;
comment on function keyring.status(boolean) is
  'The keys, and how many secrets and models in the history each of them seals; never a value.
verify: open every value too and count those that do not open; this needs the session''s key-encryption key.
It reads all that is stored.
Errors: INVALID_ARGUMENT; ENCRYPTION_KEY_MISSING with verify.';
