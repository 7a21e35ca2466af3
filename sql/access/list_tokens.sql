create or replace function access.list_tokens()
returns setof access.token
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.name, t.role, t.workspace_id, t.created_at, t.expires_at, t.last_used_at, t.revoked_at
  from access.tokens as t
  order by t.created_at, t.name
$$;
comment on function access.list_tokens() is 'Every token that was ever made, oldest first; never the token itself, nor its hash.';
