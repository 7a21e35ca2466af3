-- Internal. Only what finds a change its position calls this, before anything is written in this cluster: so no position of the era
-- before is still to come.

create or replace function workspace.begin_era()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever comes second waits for the first and then finds nothing left to do; above READ COMMITTED it gets 40001.
  update workspace.numbering as n
  set era = n.era + 1
  where (n.made_in = n.tableoid and n.made_by = n.xmin) is not true;
  if found then
    update workspace.numbering as n set made_in = n.tableoid, made_by = n.xmin;
  elsif not exists (select from workspace.numbering as n) then
    -- Not made anew: nobody knows which eras there were.
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = 'The table workspace.numbering has lost its row.',
      hint = 'Restore it together with the other tables of workspace.';
  end if;
end
$$;
comment on function workspace.begin_era() is
  'Internal: makes the positions of changes go on above all that came with a dump, whatever transaction ids are here.';
