-- Internal.

create or replace function workspace.actor()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return left(coalesce(nullif(current_setting('runtime_registry.actor', true), ''), session_user), 255);
end
$$;
comment on function workspace.actor() is
  'Internal: who the history names: the setting runtime_registry.actor (its first 255 characters), else the session user.';
