-- Runtime Registry: which models each agent runtime can run, and one call that switches a workspace's runtime.
--
--   psql -1 -v ON_ERROR_STOP=1 -f sql/install.sql
--
-- Five schemas; a schema uses only those below it.
--
--   fleet       all workspaces at once      load_registry  restore_registry  revisions  revision_manifest  deprecations
--                                           orphans  reset_orphans  move
--                                           changes_after  current_cursor  prune_changes  list_workspaces
--                                           overview  recent_changes
--   workspace   one workspace at a time     create_workspace  change_runtime  set_model  clear_model
--                                           rename_workspace  delete_workspace  get_workspace
--                                           preview_runtime_change  history
--                                           set_secret  get_secret  list_secrets  delete_secret
--   access      who may call over HTTP      create_token  revoke_token  list_tokens  authenticate
--   keyring     how secrets are sealed      init  rotate  rewrap  reseal  retire  status  opens
--   registry    what may run                resolve  default_model  menu  list_runtimes  list_models  status
--
-- A workspace is one row of workspace.workspaces; its model is the secret MODEL in workspace.secrets; every write adds
-- one to its version and one row to workspace.changes, in the same transaction. The registry tables are derived from
-- one manifest, kept in registry.revisions.
--
-- Locks are taken in one order everywhere: the registry (registry.hold says why), the keyring (keyring.hold), then
-- workspaces by id, then secrets.
-- Only the functions named above are granted to the roles of roles.sql; no table is.

\ir prerequisites.sql

\ir registry/tables.sql
\ir registry/trim_text.sql
\ir registry/text_problem.sql
\ir registry/invalid_argument.sql
\ir registry/require_read_committed.sql
\ir registry/clean_text.sql
\ir registry/hold.sql
\ir registry/look_up.sql
\ir registry/route.sql
\ir registry/valid_models.sql
\ir registry/require_runtime.sql
\ir registry/refuse_model.sql
\ir registry/resolve.sql
\ir registry/default_model.sql
\ir registry/menu.sql
\ir registry/list_runtimes.sql
\ir registry/list_models.sql
\ir registry/status.sql
\ir registry/manifest.sql
\ir registry/manifest_problems.sql
\ir registry/manifest_facts.sql
\ir registry/replace_registry.sql

\ir keyring/tables.sql
\ir keyring/pgcrypto.sql
\ir keyring/key_missing.sql
\ir keyring/hold.sql
\ir keyring/lock.sql
\ir keyring/session_kek.sql
\ir keyring/strong_kek.sql
\ir keyring/is_whole.sql
\ir keyring/wrap.sql
\ir keyring/open_key.sql
\ir keyring/active_key.sql
\ir keyring/any_key.sql
\ir keyring/add_key.sql
\ir keyring/unseal.sql
\ir keyring/seal_all.sql
\ir keyring/reseal_value.sql
\ir keyring/init.sql
\ir keyring/rotate.sql
\ir keyring/rewrap.sql

\ir access/tables.sql
\ir access/create_token.sql
\ir access/revoke_token.sql
\ir access/list_tokens.sql
\ir access/authenticate.sql

\ir workspace/tables.sql
\ir workspace/actor.sql
\ir workspace/credentials.sql
\ir workspace/route.sql
\ir workspace/secret_unreadable.sql
\ir workspace/workspace_not_found.sql
\ir workspace/read_workspace.sql
\ir workspace/hold.sql
\ir workspace/lock_workspace.sql
\ir workspace/version_conflict.sql
\ir workspace/change_of.sql
\ir workspace/recorded_answer.sql
\ir workspace/choose_model.sql
\ir workspace/keep_pair.sql
\ir workspace/describe_change.sql
\ir workspace/begin_era.sql
\ir workspace/own_position.sql
\ir workspace/write_change.sql
\ir workspace/create_workspace.sql
\ir workspace/change_runtime.sql
\ir workspace/set_model.sql
\ir workspace/clear_model.sql
\ir workspace/rename_workspace.sql
\ir workspace/delete_workspace.sql
\ir workspace/get_workspace.sql
\ir workspace/preview_runtime_change.sql
\ir workspace/entry_of.sql
\ir workspace/history.sql
\ir workspace/secret_name.sql
\ir workspace/write_secret_change.sql
\ir workspace/set_secret.sql
\ir workspace/delete_secret.sql
\ir workspace/get_secret.sql
\ir workspace/list_secrets.sql
\ir workspace/reseal_workspace.sql
\ir workspace/key_uses.sql

\ir keyring/reseal.sql
\ir keyring/retire.sql
\ir keyring/status.sql
\ir keyring/opens.sql

\ir fleet/types.sql
\ir fleet/tables.sql
\ir fleet/stored_models.sql
\ir fleet/reset_of.sql
\ir fleet/describe_orphans.sql
\ir fleet/change_batch.sql
\ir fleet/compare_registry.sql
\ir fleet/replace_registry.sql
\ir fleet/load_registry.sql
\ir fleet/require_revision.sql
\ir fleet/restore_registry.sql
\ir fleet/revisions.sql
\ir fleet/revision_manifest.sql
\ir fleet/deprecations.sql
\ir fleet/parse_cursor.sql
\ir fleet/check_batch.sql
\ir fleet/feed_end.sql
\ir fleet/current_cursor.sql
\ir fleet/changes_after.sql
\ir fleet/prune_changes.sql
\ir fleet/list_workspaces.sql
\ir fleet/find_orphans.sql
\ir fleet/orphans.sql
\ir fleet/begin_batch.sql
\ir fleet/page_of.sql
\ir fleet/move.sql
\ir fleet/reset_orphans.sql
\ir fleet/overview.sql
\ir fleet/recent_changes.sql

\ir roles.sql
\ir grants.sql
\ir version.sql
