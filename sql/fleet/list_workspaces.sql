create or replace function fleet.list_workspaces(after uuid default null, max_entries integer default 100)
returns setof fleet.workspace_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if list_workspaces.max_entries is null or list_workspaces.max_entries not between 1 and 1000 then
    perform registry.invalid_argument('max_entries', 'is not between 1 and 1000');
  end if;

  return query
    select w.id, w.name, w.runtime::text, w.version, w.created_at, w.updated_at
    from workspace.workspaces as w
    where w.id >= coalesce(list_workspaces.after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from list_workspaces.after
    order by w.id
    limit list_workspaces.max_entries;
end
$$;
comment on function fleet.list_workspaces(uuid, integer) is
  'The workspaces by id, without their models, a page at a time.
after: the last id of the page before; null: the first page. max_entries: how many, at most 1000.
Errors: INVALID_ARGUMENT.';
