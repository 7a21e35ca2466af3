create or replace function workspace.preview_runtime_change(
  ws uuid,
  runtime text,
  model text default null,
  restore boolean default false
)
returns workspace.change
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target constant text := registry.clean_text(preview_runtime_change.runtime, 'runtime');
  wanted constant text := workspace.optional_text(preview_runtime_change.model, 'model');
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  current := workspace.read_workspace(preview_runtime_change.ws);
  perform registry.require_runtime(target);
  decided := workspace.choose_model(current, target, wanted, preview_runtime_change.restore);
  return workspace.change_of(
    workspace.describe_change(current, decided, 'change_runtime'), current.model, decided.model
  );
end
$$;
comment on function workspace.preview_runtime_change(uuid, text, text, boolean) is
  'What workspace.change_runtime would answer now, without writing or locking anything.
The arguments are those of change_runtime. The version is the one the answer was decided on: give it to change_runtime as expected_version
to have exactly this.
Errors: as change_runtime.';
