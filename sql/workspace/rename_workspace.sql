create or replace function workspace.rename_workspace(
  ws uuid,
  name text,
  runtime text default null,
  model text default null,
  restore boolean default false,
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
  called constant text collate "C" := registry.clean_text(rename_workspace.name, 'name');
  target constant text collate "C" :=
    case when rename_workspace.runtime is not null then registry.clean_text(rename_workspace.runtime, 'runtime') end;
  wanted constant text collate "C" :=
    case when rename_workspace.model is not null then registry.clean_text(rename_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when rename_workspace.request_id is not null then registry.clean_text(rename_workspace.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if rename_workspace.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  elsif rename_workspace.restore and target is null then
    perform registry.invalid_argument('restore', 'needs a runtime');
  end if;

  current := workspace.lock_workspace(rename_workspace.ws);

  answer := workspace.recorded_answer(
    current.with_key, current.workspace_id, request, 'rename_workspace', target, wanted, rename_workspace.restore, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;

  if target is not null then
    perform registry.require_runtime(target);
  end if;
  if rename_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, rename_workspace.expected_version);
  end if;

  if target is not null or wanted is not null then
    decided := workspace.choose_model(
      current, coalesce(target, current.runtime), wanted, rename_workspace.restore
    );
  elsif current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  else
    -- The pair stays as it is, even one that a newer registry does not have.
    decided := workspace.keep_pair(current, workspace.credentials(current.workspace_id));
  end if;
  return workspace.write_change(
    current, decided, 'rename_workspace', rename_workspace.restore, request, called
  );
end
$$;
comment on function workspace.rename_workspace(uuid, text, text, text, boolean, bigint, text) is
  'Gives a workspace another name and, in the same change, another runtime or model where they are given.
ws: the workspace. name: its new name; need not be unique. runtime, restore: as in workspace.change_runtime; null: it keeps its runtime. model:
strict, it must be registered for the runtime; null: as change_runtime decides, or with no runtime the one it has.
expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request; repeated, it gets the
recorded answer and changes nothing.
Errors: as change_runtime.';
