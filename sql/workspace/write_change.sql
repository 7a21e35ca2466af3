-- Internal. Every call that changes one workspace ends here (fleet.change_batch writes the same rows for many). Its row is
-- locked before, or new, or deleted. All of it or, if any statement fails, nothing.

create or replace function workspace.write_change(
  current workspace.snapshot,
  decided workspace.decision,
  action text,
  restore boolean default false,
  request_id text default null,
  name text default null,
  secret text default null,
  secret_value keyring.sealed_value default null
)
returns workspace.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer workspace.change := workspace.describe_change(
    write_change.current, write_change.decided, write_change.action
  );
  model keyring.sealed_value;
  stored keyring.sealed_value := write_change.secret_value;
  stored_as text := case when secret_value.sealed is not null then write_change.secret end;
  actor text;
  changed_at timestamptz;
  txid xid8;
begin
  if write_change.name is not null and not answer.changed then
    answer.changed := (
      select w.name <> write_change.name from workspace.workspaces as w where w.id = answer.workspace_id
    );
  end if;

  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not answer.changed and write_change.request_id is null then
    return answer;
  end if;

  -- A model that stays keeps its bytes. Another one is sealed first: a plain value must never reach a table or the WAL.
  if decided.model_source = 'none' then
    if current.sealed is not null then
      delete from workspace.secrets as s where s.workspace_id = answer.workspace_id and s.key = 'MODEL';
    end if;
  elsif decided.model_source = 'kept' or decided.model = current.model then
    model := (current.sealed, current.key_id);
  else
    model := keyring.seal(current.with_key, current.workspace_id, 'MODEL', decided.model);
    stored := model;
    stored_as := 'MODEL';
  end if;

  answer.version := current.version + 1;
  actor := workspace.actor();
  changed_at := clock_timestamp();
  txid := pg_current_xact_id();
  -- One statement: three would cost much more. (With the update at its end it can be distributed, too.)
  with written as (
    insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
    select answer.workspace_id, stored_as, stored.sealed, stored.key_id, changed_at
    where stored_as is not null
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed,
      key_id = excluded.key_id,
      updated_at = excluded.updated_at
  ),
  recorded as (
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed,
      previous_key_id,
      sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid, secret,
      model_deprecated, model_sunset_at, position, name
    )
    values (
      answer.workspace_id, answer.version, write_change.action, answer.changed, answer.previous_runtime, answer.runtime,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.sealed end,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.key_id end,
      model.sealed, model.key_id,
      answer.model_source, answer.provider, answer.billed_to, answer.billing_changed,
      write_change.restore, actor, write_change.request_id, changed_at, txid, write_change.secret,
      answer.model_deprecated, answer.model_sunset_at, current.next_position, write_change.name
    )
  )
  -- Not a workspace that this very change has made, or deleted.
  update workspace.workspaces as w
  set
    name = coalesce(write_change.name, w.name),
    runtime = answer.runtime,
    version = answer.version,
    updated_at = changed_at,
    position = current.next_position
  where w.id = answer.workspace_id and w.version < answer.version;

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
  return answer;
end
$$;
comment on function workspace.write_change(
  workspace.snapshot, workspace.decision, text, boolean, text, text, text, keyring.sealed_value
) is
  'Internal: stores what was decided about a workspace, records it and says what was done.
name: its new one; null: it keeps its name. secret: the secret besides MODEL that the change is about; secret_value: what to store as that; null:
nothing. With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';
