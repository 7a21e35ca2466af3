create or replace function access.authenticate(hash bytea)
returns setof access.caller
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moment constant timestamptz := clock_timestamp();
  found_token access.tokens;
begin
  -- The time this takes tells nothing about a token. What is compared, in the index, are hashes, and whoever tries cannot
  -- choose them byte by byte: that would be inverting SHA-256.
  select t.*
  into found_token
  from access.tokens as t
  where t.hash = authenticate.hash and t.revoked_at is null and (t.expires_at is null or t.expires_at > moment);
  if not found then
    return;
  end if;

  -- At most one write a minute, by one caller: the others neither wait for its lock nor take one. A standby does without.
  if (found_token.last_used_at is null or found_token.last_used_at < moment - interval '1 minute')
    and current_setting('transaction_read_only') = 'off'
  then
    perform from access.tokens as t
    where t.name = found_token.name and t.last_used_at is not distinct from found_token.last_used_at
    for no key update skip locked;
    if found then
      update access.tokens as t set last_used_at = moment where t.name = found_token.name;
    end if;
  end if;

  return next (found_token.name, found_token.role, found_token.workspace_id)::access.caller;
end
$$;
comment on function access.authenticate(bytea) is
  'Whose token it is; no row if it is nobody''s, expired or revoked, and nothing says which.
hash: the SHA-256 of the token. Call it in a transaction of its own, so that the use is on record even if what follows is refused.';
