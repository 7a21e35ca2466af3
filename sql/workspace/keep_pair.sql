-- Internal.

create or replace function workspace.keep_pair(current workspace.snapshot, credentials text[])
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  routing constant registry.routing := registry.route(
    current.runtime, current.model, keep_pair.credentials
  );
begin
  return (
    current.runtime,
    current.model,
    case when current.sealed is null then 'none' else 'kept' end,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    false,
    false
  )::workspace.decision;
end
$$;
comment on function workspace.keep_pair(workspace.snapshot, text[]) is
  'Internal: the decision that a workspace keeps its pair, even one that a newer registry does not have, or that cannot be read.
credentials: the names of its secrets besides MODEL.';
