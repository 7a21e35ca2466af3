-- Internal.

create or replace function workspace.entry_of(with_key keyring.data_key, recorded workspace.changes)
returns workspace.history_entry
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  entry workspace.history_entry;
begin
  entry.workspace_id := recorded.workspace_id;
  entry.version := recorded.version;
  entry.action := recorded.action;
  entry.changed := recorded.changed;
  entry.previous_runtime := recorded.previous_runtime;
  entry.runtime := recorded.runtime;
  entry.previous_model := keyring.unseal(
    with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id
  );
  entry.model := keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id);
  entry.model_source := recorded.model_source;
  entry.provider := recorded.provider;
  entry.billed_to := recorded.billed_to;
  entry.actor := recorded.actor;
  entry.request_id := recorded.request_id;
  entry.changed_at := recorded.changed_at;
  entry.secret := recorded.secret;
  entry.name := recorded.name;
  return entry;
end
$$;
comment on function workspace.entry_of(keyring.data_key, workspace.changes) is
  'Internal: a row of changes as whoever looks at the history is told it.';
