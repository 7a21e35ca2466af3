create or replace function fleet.current_cursor()
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return concat_ws(
    '.', fleet.feed_end(), '00000000-0000-0000-0000-000000000000', 0,
    coalesce((select r.prunings from fleet.retention as r), 0)
  );
end
$$;
comment on function fleet.current_cursor() is
  'The cursor of now: behind it fleet.changes_after gives every change that is committed from now on.
And, if transactions are still running that are older, some that were committed shortly before. To take over the state of all workspaces and
then keep it up to date: first get this, then read them, then follow.';
