create or replace function keyring.reseal(after uuid default null, batch integer default 1000)
returns keyring.reseal_progress
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  with_key keyring.data_key;
  ids uuid[];
  ws uuid;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  counted keyring.reseal_progress;
begin
  if reseal.batch is null or reseal.batch not between 1 and 100000 then
    perform registry.invalid_argument('batch', 'must be between 1 and 100000');
  end if;

  perform keyring.hold();
  with_key := keyring.active_key();
  if with_key.key_id is null then
    return progress;  -- Without a key there is nothing to seal with, and nothing sealed.
  end if;

  -- A deleted workspace is in changes only.
  ids := array(
    select c.workspace_id
    from workspace.changes as c
    where c.workspace_id >= coalesce(reseal.after, '00000000-0000-0000-0000-000000000000')
      and c.workspace_id is distinct from reseal.after
    group by c.workspace_id
    order by c.workspace_id
    limit reseal.batch
  );
  foreach ws in array ids loop
    counted := workspace.reseal_workspace(with_key, ws);
    progress.resealed := progress.resealed + counted.resealed;
    progress.unreadable := progress.unreadable + counted.unreadable;
    progress.skipped := progress.skipped + counted.skipped;
    progress.next_after := ws;
  end loop;
  if cardinality(ids) < reseal.batch then
    progress.next_after := null;
  end if;
  return progress;
end
$$;
comment on function keyring.reseal(uuid, integer) is
  'Seals with the active key what is stored plain or under another key, the history too.
It does the next batch of workspaces, in the order of their ids. A workspace that somebody holds is not waited for.
after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
Returns where to go on (next_after; null: this was the last batch) and how many values were resealed, are unreadable (left as they are), and
how many workspaces were skipped: run through again until none is. Each batch is worth a transaction of its own.
Errors: INVALID_ARGUMENT, ENCRYPTION_KEY_MISSING.';
