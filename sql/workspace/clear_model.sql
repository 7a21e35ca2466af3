create or replace function workspace.clear_model(
  ws uuid,
  expected_version bigint default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  request constant text collate "C" :=
    case when clear_model.request_id is not null then registry.clean_text(clear_model.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(clear_model.ws, needs_key => false);

  answer := workspace.recorded_answer(current.with_key, current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, clear_model.expected_version);
  end if;
  -- No model, so nobody serves it and nobody pays; changed, if there was one.
  decided := (current.runtime, null, 'none', null, null, false, null, current.sealed is not null, false);
  return workspace.write_change(current, decided, 'clear_model', false, request);
end
$$;
comment on function workspace.clear_model(uuid, bigint, text) is
  'Removes a workspace''s model, readable or not.
ws: the workspace. expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request;
repeated, it gets the recorded answer and changes nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, REQUEST_ID_REUSED. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';
