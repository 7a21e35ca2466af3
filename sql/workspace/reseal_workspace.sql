-- Internal. It goes through what is stored, so it stands above the tables of workspace.

create or replace function workspace.reseal_workspace(with_key keyring.data_key, ws uuid)
returns keyring.reseal_progress
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  active_id constant integer := with_key.key_id;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  secret workspace.secrets;
  change workspace.changes;
  resealed keyring.sealed_value;
begin
  -- Never waits, so that it is no part of a deadlock with somebody who holds several workspaces.
  perform from workspace.workspaces as w where w.id = reseal_workspace.ws for no key update skip locked;
  if not found and exists (select from workspace.workspaces as w where w.id = reseal_workspace.ws) then
    progress.skipped := 1;
    return progress;
  end if;

  for secret in
    select s.*
    from workspace.secrets as s
    where s.workspace_id = reseal_workspace.ws and s.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, secret.workspace_id, secret.key, secret.sealed, secret.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.secrets as s
      set sealed = resealed.sealed, key_id = resealed.key_id
      where s.workspace_id = secret.workspace_id and s.key = secret.key;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws and c.sealed is not null and c.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.sealed, change.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set sealed = resealed.sealed, key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws
      and c.previous_sealed is not null
      and c.previous_key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.previous_sealed, change.previous_key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set previous_sealed = resealed.sealed, previous_key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;
  return progress;
end
$$;
comment on function workspace.reseal_workspace(keyring.data_key, uuid) is
  'Internal: seals with this key what a workspace and its history store plain or under another one.';
