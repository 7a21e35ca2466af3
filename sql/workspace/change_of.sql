-- Internal. The one place that turns a row of changes into an answer; the models come unsealed from the caller.

create or replace function workspace.change_of(recorded workspace.changes, previous_model text, model text)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    recorded.workspace_id,
    recorded.version,
    recorded.changed,
    recorded.previous_runtime,
    recorded.runtime,
    change_of.previous_model,
    change_of.model,
    recorded.model_source,
    recorded.model_source in ('restored', 'equivalent', 'default'),
    recorded.provider,
    recorded.billed_to,
    recorded.billing_changed,
    -- needs_restart
    recorded.changed and case
      when recorded.action in ('create_workspace', 'delete_workspace') then false
      when recorded.action = 'rename_workspace' then
        recorded.runtime <> recorded.previous_runtime or change_of.previous_model is distinct from change_of.model
      else true
    end,
    recorded.model_deprecated,
    recorded.model_sunset_at
  )::workspace.change;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';
