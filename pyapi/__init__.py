"""Runtime Registry: which models each agent runtime can run, and one call that switches a
workspace's runtime.

    import psycopg
    from pyapi import change_runtime

    with psycopg.connect() as conn:
        change = change_runtime(conn, workspace_id, "google-adk")
    change.model_was_reset, change.model

All logic is in the database; these functions call it. The caller owns the connection and commits.
`pyapi.aio` has the same names for async connections, `pyapi.errors` the errors, `pyapi.keyring` the
keys that seal secrets, `pyapi.responses` turns results and errors into HTTP answers and
`pyapi.schema` installs and migrates the database.
"""

from .access import (
    Caller,
    Token,
    authenticate,
    create_token,
    list_tokens,
    revoke_token,
)
from .batches import move_all, reset_all_orphans
from .errors import DatabaseFailure, RegistryError
from .fleet import (
    Deprecation,
    FeedEntry,
    MoveEntry,
    Orphan,
    OverviewEntry,
    Pruning,
    RegistryLoad,
    Revision,
    WorkspaceEntry,
    changes_after,
    current_cursor,
    deprecations,
    list_workspaces,
    load_registry,
    move,
    orphans,
    overview,
    prune_changes,
    recent_changes,
    reset_orphans,
    restore_registry,
    revision_manifest,
    revisions,
)
from .follow import follow_changes
from .registry import (
    Installation,
    ModelEntry,
    RuntimeEntry,
    default_model,
    list_models,
    list_runtimes,
    menu,
    resolve,
    status,
)
from .workspace import (
    Change,
    HistoryEntry,
    SecretEntry,
    Workspace,
    change_runtime,
    clear_model,
    create_workspace,
    delete_secret,
    delete_workspace,
    get_secret,
    get_workspace,
    history,
    list_secrets,
    preview_runtime_change,
    rename_workspace,
    set_model,
    set_secret,
)

__all__ = [
    "Caller",
    "Change",
    "DatabaseFailure",
    "Deprecation",
    "FeedEntry",
    "HistoryEntry",
    "Installation",
    "ModelEntry",
    "MoveEntry",
    "Orphan",
    "OverviewEntry",
    "Pruning",
    "RegistryError",
    "RegistryLoad",
    "Revision",
    "RuntimeEntry",
    "SecretEntry",
    "Token",
    "Workspace",
    "WorkspaceEntry",
    "authenticate",
    "change_runtime",
    "changes_after",
    "clear_model",
    "create_token",
    "create_workspace",
    "current_cursor",
    "default_model",
    "delete_secret",
    "delete_workspace",
    "deprecations",
    "follow_changes",
    "get_secret",
    "get_workspace",
    "history",
    "list_models",
    "list_runtimes",
    "list_secrets",
    "list_tokens",
    "list_workspaces",
    "load_registry",
    "menu",
    "move",
    "move_all",
    "orphans",
    "overview",
    "preview_runtime_change",
    "prune_changes",
    "recent_changes",
    "rename_workspace",
    "reset_all_orphans",
    "reset_orphans",
    "resolve",
    "restore_registry",
    "revision_manifest",
    "revisions",
    "revoke_token",
    "set_model",
    "set_secret",
    "status",
]
