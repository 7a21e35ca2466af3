-- Internal.

create or replace function fleet.reset_of(runtime text, model text)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  orphan workspace.snapshot;
begin
  orphan.runtime := reset_of.runtime;
  orphan.model := reset_of.model;
  orphan.model_is_unreadable := false;
  return workspace.choose_model(orphan, reset_of.runtime, null, false);
exception
  when sqlstate 'PT422' then
    return null;  -- NO_DEFAULT_MODEL
end
$$;
comment on function fleet.reset_of(text, text) is
  'Internal: what workspace.change_runtime would decide for a workspace with this model on this runtime; null where it would refuse.';
