-- Internal. The one place that turns a row of changes into an answer; the models come unsealed from the caller.

create or replace function workspace.change_of(recorded workspace.changes, previous_model text, model text)
returns workspace.change
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  answer workspace.change;
begin
  answer.workspace_id := recorded.workspace_id;
  answer.version := recorded.version;
  answer.changed := recorded.changed;
  answer.previous_runtime := recorded.previous_runtime;
  answer.runtime := recorded.runtime;
  answer.previous_model := change_of.previous_model;
  answer.model := change_of.model;
  answer.model_source := recorded.model_source;
  answer.model_was_reset := recorded.model_source in ('restored', 'equivalent', 'default');
  answer.provider := recorded.provider;
  answer.billed_to := recorded.billed_to;
  answer.billing_changed := recorded.billing_changed;
  answer.needs_restart := recorded.changed
    and recorded.action not in ('create_workspace', 'delete_workspace')
    and (
      recorded.action <> 'rename_workspace'
      or recorded.runtime <> recorded.previous_runtime
      or change_of.previous_model is distinct from change_of.model
    );
  answer.model_deprecated := recorded.model_deprecated;
  answer.model_sunset_at := recorded.model_sunset_at;
  return answer;
end
$$;
comment on function workspace.change_of(workspace.changes, text, text) is
  'Internal: a change as its caller is told it.';
