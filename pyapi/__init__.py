"""Runtime Registry: which models each agent runtime can run, and one call that switches a
workspace's runtime.

    import psycopg
    from pyapi import change_runtime

    with psycopg.connect() as conn:
        change = change_runtime(conn, workspace_id, "google-adk")
    change.model_was_reset, change.model

All logic is in the database; these functions call it. The caller owns the connection and commits.
`pyapi.aio` has the same names for async connections, `pyapi.errors` the errors, `pyapi.responses`
turns results and errors into HTTP answers and `pyapi.schema` installs and migrates the database.
"""

from .errors import DatabaseFailure, RegistryError
from .fleet import RegistryLoad, load_registry
from .registry import (
    ModelEntry,
    RuntimeEntry,
    default_model,
    list_models,
    list_runtimes,
    menu,
    resolve,
)
from .workspace import (
    Change,
    HistoryEntry,
    Workspace,
    change_runtime,
    clear_model,
    create_workspace,
    delete_workspace,
    get_workspace,
    history,
    preview_runtime_change,
    set_model,
)

__all__ = [
    "Change",
    "DatabaseFailure",
    "HistoryEntry",
    "ModelEntry",
    "RegistryError",
    "RegistryLoad",
    "RuntimeEntry",
    "Workspace",
    "change_runtime",
    "clear_model",
    "create_workspace",
    "default_model",
    "delete_workspace",
    "get_workspace",
    "history",
    "list_models",
    "list_runtimes",
    "load_registry",
    "menu",
    "preview_runtime_change",
    "resolve",
    "set_model",
]
