"""A walk through all functions of pyapi that call the database, for connections of any kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import pyapi
from pyapi import schema
from pyapi.access import new_token, token_hash
from pyapi.errors import ModelNotRegistered, WorkspaceNotFound
from support import Conn

GEMINI = "platform:gemini-2.5-pro"


def use_every_function(conn: Conn) -> set[str]:
    """Call all functions, on a connection in autocommit mode, and return their names.

    A database can be walked through any number of times.
    """
    used = set()

    def call(function: Callable[..., Any], *args: object, **named: object) -> Any:
        used.add(function.__name__)
        return function(conn, *args, **named)

    cursor = call(pyapi.current_cursor)
    ws = call(pyapi.create_workspace, "w", "claude-code", model="opus").workspace_id
    preview = call(pyapi.preview_runtime_change, ws, "google-adk")
    assert preview.model == GEMINI
    assert call(pyapi.change_runtime, ws, "google-adk", request_id="r").model == GEMINI
    assert call(pyapi.change_runtime, ws, "google-adk", request_id="r").version == 2
    with pytest.raises(ModelNotRegistered) as refusal:
        call(pyapi.set_model, ws, "no such model")
    assert GEMINI in refusal.value.detail["valid_models"]
    assert call(pyapi.clear_model, ws).model is None
    assert call(pyapi.set_model, ws, GEMINI).version == 4
    assert call(pyapi.get_workspace, ws).model == GEMINI
    assert call(pyapi.set_secret, ws, "A", "1").version == 5
    assert call(pyapi.get_secret, ws, "A") == "1"
    assert [entry.name for entry in call(pyapi.list_secrets, ws)] == ["A", "MODEL"]
    assert call(pyapi.delete_secret, ws, "A").version == 6
    with conn.transaction(force_rollback=True):
        assert call(pyapi.rename_workspace, ws, "v", runtime="hermes").version == 7
    assert ws in [entry.workspace_id for entry in call(pyapi.list_workspaces)]
    with conn.transaction(force_rollback=True):
        assert call(pyapi.delete_workspace, ws).version == 7
    assert call(pyapi.delete_workspace, ws, expected_version=6).version == 7
    assert [entry.version for entry in call(pyapi.history, ws)] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry.version for entry in call(pyapi.changes_after, cursor)] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry.version for entry in call(pyapi.recent_changes)][:7] == [7, 6, 5, 4, 3, 2, 1]
    assert ("claude-code", "requested") not in {
        (entry.runtime, entry.model_source) for entry in call(pyapi.overview)
    }
    assert call(pyapi.prune_changes, datetime.now(UTC) - timedelta(days=365)).pruned == 0
    with pytest.raises(WorkspaceNotFound):
        call(pyapi.get_workspace, ws)

    hashed = token_hash(new_token())
    call(pyapi.create_token, str(ws), "workspace", hashed, workspace_id=ws)
    assert call(pyapi.authenticate, hashed).workspace_id == ws
    assert call(pyapi.revoke_token, str(ws)).revoked_at
    assert str(ws) in {token.name for token in call(pyapi.list_tokens)}

    assert call(pyapi.status).registry_revision == 1
    models = call(pyapi.menu, "hermes")
    assert [entry.model for entry in call(pyapi.list_models, "hermes")] == models
    assert call(pyapi.default_model, "hermes") in models
    assert call(pyapi.resolve, "google-adk", GEMINI, auth_env=["A"]) == "platform"
    assert "hermes" in {entry.runtime for entry in call(pyapi.list_runtimes)}
    assert call(pyapi.load_registry, schema.default_manifest()).loaded is False
    assert call(pyapi.restore_registry, 1).loaded is False
    assert [entry.revision for entry in call(pyapi.revisions)] == [1]
    assert call(pyapi.revision_manifest) == schema.default_manifest()
    assert call(pyapi.deprecations) == []

    assert call(pyapi.orphans) == []
    assert call(pyapi.reset_orphans) == []
    ws = call(pyapi.create_workspace, "w", "claude-code", model="opus").workspace_id
    (moved,) = call(pyapi.move, "claude-code", "google-adk", among=[ws])
    assert (moved.workspace_id, moved.model) == (ws, GEMINI)
    call(pyapi.delete_workspace, ws)
    return used
