-- Uninstalls Runtime Registry, but for the schema registry and alembic's version table in it: alembic still needs
-- them, and env.py drops them afterwards. Nothing is dropped by cascade: if something else depends on it, this fails.

do $$
declare
  workspaces bigint;
begin
  lock table registry.state, workspace.workspaces in access exclusive mode;
  if current_setting('runtime_registry.discard_workspaces', true) is distinct from 'on' then
    select count(*) into workspaces from workspace.workspaces;
    if workspaces > 0 then
      raise exception using
        errcode = 'PT409',
        message = 'There are workspaces in this database, and uninstalling would destroy them.',
        detail = jsonb_build_object('code', 'WORKSPACES_EXIST', 'workspaces', workspaces),
        hint = 'Delete them, or set runtime_registry.discard_workspaces to on to have them destroyed.';
    end if;
  end if;
end
$$;

drop function
  fleet.load_registry,
  fleet.unroutable_workspaces,
  keyring.seal,
  keyring.unseal,
  registry.clean_text,
  registry.default_model,
  registry.hold,
  registry.id_problem,
  registry.invalid_argument,
  registry.list_models,
  registry.list_runtimes,
  registry.manifest_arms,
  registry.manifest_array,
  registry.manifest_claims,
  registry.manifest_difference,
  registry.manifest_equivalents,
  registry.manifest_facts,
  registry.manifest_models,
  registry.manifest_problems,
  registry.manifest_providers,
  registry.manifest_runtimes,
  registry.manifest_strings,
  registry.menu,
  registry.refuse_model,
  registry.replace_registry,
  registry.require_runtime,
  registry.resolve,
  registry.route,
  registry.shape_problems,
  registry.text_problem,
  registry.trim_text,
  registry.valid_models,
  workspace.actor,
  workspace.change_of,
  workspace.change_runtime,
  workspace.choose_model,
  workspace.clear_model,
  workspace.create_workspace,
  workspace.delete_workspace,
  workspace.describe_change,
  workspace.get_workspace,
  workspace.history,
  workspace.lock_workspace,
  workspace.optional_text,
  workspace.preview_runtime_change,
  workspace.read_workspace,
  workspace.record_change,
  workspace.recorded_answer,
  workspace.secret_unreadable,
  workspace.set_model,
  workspace.store_model,
  workspace.version_conflict,
  workspace.workspace_not_found,
  workspace.write_change;

drop table
  registry.arms,
  registry.claims,
  registry.equivalents,
  registry.models,
  registry.providers,
  registry.revisions,
  registry.runtimes,
  registry.state,
  workspace.changes,
  workspace.secrets,
  workspace.workspaces;

drop type
  fleet.registry_load,
  keyring.sealed_value,
  registry.manifest_problem,
  registry.model_entry,
  registry.routing,
  registry.runtime_entry,
  workspace.change,
  workspace.decision,
  workspace.history_entry,
  workspace.snapshot,
  workspace.state;

drop schema fleet, workspace, keyring;

-- What grants.sql gave on the schema that stays for now.
revoke all on schema registry from runtime_registry_reader, runtime_registry_operator, runtime_registry_admin;

-- The roles belong to the whole cluster: each goes only if nothing there needs it any more.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['runtime_registry_reader', 'runtime_registry_operator', 'runtime_registry_admin'] loop
    -- Dropping a role with members would silently take away what they were given. Since PostgreSQL 16 the role
    -- that creates another is a member of it by itself.
    continue when exists (
      select
      from pg_catalog.pg_auth_members as m
      join pg_catalog.pg_roles as r on r.oid = m.roleid
      where r.rolname = role_name and m.member <> current_user::regrole
    );
    begin
      execute format('drop role if exists %I', role_name);
    exception
      when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'The role % is kept: it is used elsewhere, or is not ours to drop.', role_name;
    end;
  end loop;
end
$$;
