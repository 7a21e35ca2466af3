create or replace function workspace.history(ws uuid)
returns setof workspace.history_entry
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  return query
    select
      c.workspace_id,
      c.version,
      c.action,
      c.changed,
      c.previous_runtime::text,
      c.runtime::text,
      keyring.unseal(c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
      keyring.unseal(c.workspace_id, 'MODEL', c.sealed, c.key_id),
      c.model_source,
      c.provider,
      c.billed_to,
      c.actor,
      c.request_id::text,
      c.changed_at
    from workspace.changes as c
    where c.workspace_id = history.ws
    order by c.version;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;
comment on function workspace.history(uuid) is
  'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';
