"""The functions of `pyapi` for `psycopg.AsyncConnection`: the same but for the await.

`pyapi.aio.keyring` has those of `pyapi.keyring`.
"""

from __future__ import annotations

from .. import fleet, registry, workspace
from ..calls import coroutine

create_workspace = coroutine(workspace.create_workspace_call)
change_runtime = coroutine(workspace.change_runtime_call)
set_model = coroutine(workspace.set_model_call)
clear_model = coroutine(workspace.clear_model_call)
get_workspace = coroutine(workspace.get_workspace_call)
preview_runtime_change = coroutine(workspace.preview_runtime_change_call)
delete_workspace = coroutine(workspace.delete_workspace_call)
history = coroutine(workspace.history_call)
set_secret = coroutine(workspace.set_secret_call)
get_secret = coroutine(workspace.get_secret_call)
list_secrets = coroutine(workspace.list_secrets_call)
delete_secret = coroutine(workspace.delete_secret_call)

resolve = coroutine(registry.resolve_call)
default_model = coroutine(registry.default_model_call)
menu = coroutine(registry.menu_call)
list_runtimes = coroutine(registry.list_runtimes_call)
list_models = coroutine(registry.list_models_call)

load_registry = coroutine(fleet.load_registry_call)
restore_registry = coroutine(fleet.restore_registry_call)
revisions = coroutine(fleet.revisions_call)
revision_manifest = coroutine(fleet.revision_manifest_call)
deprecations = coroutine(fleet.deprecations_call)

__all__ = [
    "change_runtime",
    "clear_model",
    "create_workspace",
    "default_model",
    "delete_secret",
    "delete_workspace",
    "deprecations",
    "get_secret",
    "get_workspace",
    "history",
    "list_models",
    "list_runtimes",
    "list_secrets",
    "load_registry",
    "menu",
    "preview_runtime_change",
    "resolve",
    "restore_registry",
    "revision_manifest",
    "revisions",
    "set_model",
    "set_secret",
]
