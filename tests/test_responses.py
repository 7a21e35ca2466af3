"""What goes out over HTTP for every result and every error, and that nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pyapi import (
    Change,
    ModelEntry,
    RegistryError,
    Workspace,
    change_runtime,
    create_workspace,
    delete_workspace,
    deprecations,
    get_workspace,
    history,
    list_models,
    list_runtimes,
    load_registry,
    revisions,
    set_model,
)
from pyapi.errors import (
    ConnectionLost,
    DatabaseFailure,
    Deadlock,
    ModelNotRegistered,
    NoDefaultModel,
    PermissionDenied,
    ReadOnlyDatabase,
    SecretUnreadable,
    VersionConflict,
    WorkspaceNotFound,
)
from pyapi.responses import Response, respond
from pyapi.schema import default_manifest
from support import Conn

WS = UUID("0f5b8b2e-6f0c-4a8e-9d0e-2f8b1c3d4e5f")
CHANGE = Change(
    workspace_id=WS,
    version=7,
    changed=True,
    previous_runtime="claude-code",
    runtime="google-adk",
    previous_model="moonshot/kimi-k2.6",
    model="platform:gemini-2.5-pro",
    model_source="default",
    model_was_reset=True,
    provider="platform",
    billed_to="platform",
    billing_changed=True,
    needs_restart=True,
    model_deprecated=False,
    model_sunset_at=None,
)


def test_a_switch_that_reset_the_model_says_so_and_names_the_new_one() -> None:
    assert respond(CHANGE) == Response(
        200,
        {
            "status": "updated",
            "workspace_id": str(WS),
            "version": 7,
            "runtime": "google-adk",
            "previous_runtime": "claude-code",
            "model": "platform:gemini-2.5-pro",
            "previous_model": "moonshot/kimi-k2.6",
            "model_source": "default",
            "model_was_reset": True,
            "provider": "platform",
            "billed_to": "platform",
            "billing_changed": True,
            "needs_restart": True,
            "model_deprecated": False,
            "model_sunset_at": None,
        },
    )


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"changed": False}, 200, "unchanged"),
        ({"previous_runtime": None}, 201, "created"),
        ({"runtime": None, "model": None}, 200, "deleted"),
    ],
    ids=["unchanged", "created", "deleted"],
)
def test_other_writes_say_what_they_were(fields: dict[str, Any], status: int, word: str) -> None:
    response = respond(replace(CHANGE, **fields))
    assert (response.status, response.body["status"]) == (status, word)


def test_a_workspace_and_lists_are_their_fields() -> None:
    moment = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    workspace = Workspace(
        WS, "w", "hermes", None, None, None, None, 3, moment, moment, True, moment
    )
    assert respond(workspace) == Response(
        200,
        {
            "workspace_id": str(WS),
            "name": "w",
            "runtime": "hermes",
            "model": None,
            "model_registered": None,
            "provider": None,
            "billed_to": None,
            "version": 3,
            "created_at": "2025-01-02T03:04:05+00:00",
            "updated_at": "2025-01-02T03:04:05+00:00",
            "model_deprecated": True,
            "model_sunset_at": "2025-01-02T03:04:05+00:00",
        },
    )
    entry = ModelEntry(1, "m", "p", "tenant", True, None, None, None)
    assert respond([entry]) == Response(200, {"items": [asdict(entry)]})
    assert respond([]) == Response(200, {"items": []})


@pytest.mark.parametrize(
    ("error", "status", "fields"),
    [
        (
            ModelNotRegistered(
                422,
                "MODEL_NOT_REGISTERED",
                "No.",
                "Take another.",
                {
                    "code": "MODEL_NOT_REGISTERED",
                    "runtime": "hermes",
                    "model": "sent",
                    "valid_models": ["a", "b"],
                    "valid_models_total": 2,
                },
            ),
            422,
            {
                "runtime": "hermes",
                "model": "sent",
                "valid_models": ["a", "b"],
                "valid_models_total": 2,
            },
        ),
        (
            NoDefaultModel(
                422,
                "NO_DEFAULT_MODEL",
                "No.",
                "Take another.",
                {"runtime": "hermes", "valid_models": [], "valid_models_total": 0},
            ),
            422,
            {"runtime": "hermes", "valid_models": [], "valid_models_total": 0},
        ),
        (
            WorkspaceNotFound(
                404, "WORKSPACE_NOT_FOUND", "No.", "Take another.", {"workspace_id": str(WS)}
            ),
            404,
            {"workspace_id": str(WS)},
        ),
        (
            VersionConflict(
                409,
                "VERSION_CONFLICT",
                "No.",
                "Take another.",
                {"workspace_id": str(WS), "expected_version": 1, "version": 2},
            ),
            409,
            {"workspace_id": str(WS), "expected_version": 1, "version": 2},
        ),
        (RegistryError(418, "NEW_ONE", "No.", "Take another.", {"code": "NEW_ONE"}), 418, {}),
    ],
    ids=lambda value: value.code if isinstance(value, RegistryError) else "",
)
def test_a_refusal_shows_its_fields_and_no_others(
    error: RegistryError, status: int, fields: dict[str, Any]
) -> None:
    error.detail["added_by_a_later_release"] = "inside"
    assert respond(error) == Response(
        status, {"error": "No.", "code": error.code, "hint": "Take another.", **fields}
    )


def test_a_refusal_without_a_hint_has_none() -> None:
    assert respond(RegistryError(422, "NEW_ONE", "No.")).body == {"error": "No.", "code": "NEW_ONE"}


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (Deadlock.make("40P01"), "DEADLOCK", True),
        (ReadOnlyDatabase.make("25006"), "READ_ONLY_DATABASE", False),
        (ConnectionLost.make(), "CONNECTION_LOST", False),
        (ConnectionLost.make(harmless=True), "CONNECTION_LOST", True),
        # From the caller's own commit.
        (psycopg.OperationalError("inside"), "CONNECTION_LOST", False),
        (psycopg.errors.SerializationFailure("inside"), "SERIALIZATION_FAILURE", True),
    ],
    ids=["deadlock", "read-only", "lost", "lost uncommitted", "lost commit", "failed commit"],
)
def test_a_failure_of_the_database_says_only_whether_to_try_again(
    error: Exception, code: str, retry: bool
) -> None:
    response = respond(error)
    assert response.status == 503
    assert response.body == {
        "error": "The service is unavailable for the moment.",
        "code": code,
        "retry": retry,
    }


def test_missing_rights_are_403() -> None:
    assert respond(PermissionDenied.make("42501")) == Response(
        403, {"error": "This is not permitted.", "code": "PERMISSION_DENIED"}
    )


@pytest.mark.parametrize(
    "error",
    [
        SecretUnreadable(500, "SECRET_UNREADABLE", "inside", "inside", {"workspace_id": "inside"}),
        RegistryError(200, "NEW_ONE", "inside"),
        DatabaseFailure.make("XX000"),
        psycopg.errors.DivisionByZero("inside"),
        ValueError("inside"),
        KeyboardInterrupt("inside"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_500_and_says_nothing_of_the_inside(error: BaseException) -> None:
    assert respond(error) == Response(500, {"error": "Internal error.", "code": "INTERNAL"})


def test_real_results_and_refusals_are_json_and_only_a_success_speaks_of_a_reset(
    conn: Conn,
) -> None:
    created = create_workspace(conn, "w", "claude-code", model="moonshot/kimi-k2.6")
    changed = change_runtime(conn, created.workspace_id, "google-adk")
    ws = created.workspace_id
    answers: list[Any] = [
        created,
        changed,
        change_runtime(conn, ws, "google-adk"),
        get_workspace(conn, ws),
        history(conn, ws),
        list_models(conn, "hermes"),
        list_runtimes(conn),
        load_registry(conn, default_manifest()),
        revisions(conn),
        deprecations(conn),
    ]
    bodies = [json.loads(json.dumps(respond(answer).body)) for answer in answers]
    assert [body.get("status") for body in bodies[:3]] == ["created", "updated", "unchanged"]
    assert bodies[1]["model_was_reset"] is True
    assert bodies[1]["model"] == "platform:gemini-2.5-pro"

    refusals = []
    calls: list[Callable[[], object]] = [
        lambda: set_model(conn, ws, "opus"),
        lambda: change_runtime(conn, ws, "external"),
        lambda: change_runtime(conn, ws, "no-such-runtime"),
        lambda: change_runtime(conn, ws, "hermes", expected_version=99),
        lambda: delete_workspace(conn, UUID(int=0)),
        lambda: set_model(conn, "no uuid", "opus"),
    ]
    for call in calls:
        with pytest.raises(RegistryError) as caught, conn.transaction():
            call()
        response = respond(caught.value)
        body = json.loads(json.dumps(response.body))
        assert not {"model_was_reset", "needs_restart", "status"} & set(body)
        refusals.append((response.status, body["code"]))
        if body["code"] == "MODEL_NOT_REGISTERED":
            assert body["runtime"] == "google-adk"
            assert body["model"] == "opus"
            assert "platform:gemini-2.5-pro" in body["valid_models"]
    assert refusals == [
        (422, "MODEL_NOT_REGISTERED"),
        (422, "NO_DEFAULT_MODEL"),
        (422, "RUNTIME_UNSUPPORTED"),
        (409, "VERSION_CONFLICT"),
        (404, "WORKSPACE_NOT_FOUND"),
        (400, "INVALID_ARGUMENT"),
    ]
