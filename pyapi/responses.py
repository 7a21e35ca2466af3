"""What a result or an error is over HTTP. Pure: no framework, no database.

    try:
        with conn.transaction():
            answer = change_runtime(conn, workspace_id, runtime)
    except Exception as error:
        answer = error
    response = respond(answer)

Only listed fields are shown: nothing that a server, a driver or a later release adds to an error
gets out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from .access import Token
from .errors import DatabaseFailure, RegistryError, translate
from .fleet import Deprecation, OverviewEntry, RegistryLoad, Revision, WorkspaceEntry
from .registry import Installation, ModelEntry, RuntimeEntry
from .workspace import Change, HistoryEntry, SecretEntry, Workspace

Entry = (
    Workspace
    | WorkspaceEntry
    | RegistryLoad
    | Revision
    | Deprecation
    | OverviewEntry
    | HistoryEntry
    | SecretEntry
    | ModelEntry
    | RuntimeEntry
    | Installation
    | Token
)


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP status and a body that `json.dumps` takes."""

    status: int
    body: dict[str, Any]


def respond(outcome: Change | Entry | Sequence[Entry] | BaseException) -> Response:
    """Answer with what a function of `pyapi` returned, or with what was raised instead.

    A `Change` is 200, or 201 if it created the workspace, with `status` `updated`, `unchanged`,
    `created` or `deleted`; the other results are 200 with their fields, lists as `items`. A refusal
    has its own status, `error`, `code`, `hint` and the fields its class declares. A database
    failure is 503 with `code` and `retry` (whether the request may simply be sent again), or 403;
    all else is 500 and says nothing of the inside. psycopg's own errors, from a commit for
    instance, are translated first.
    """
    if isinstance(outcome, BaseException):
        return _refusal(outcome)
    if isinstance(outcome, Change):
        return _change(outcome)
    if isinstance(outcome, Sequence):
        return Response(200, {"items": [_fields(entry) for entry in outcome]})
    return Response(200, _fields(outcome))


def _change(change: Change) -> Response:
    status, word = 200, "updated"
    if not change.changed:
        word = "unchanged"
    elif change.previous_runtime is None:
        status, word = 201, "created"
    elif change.runtime is None:
        word = "deleted"
    body = {"status": word, **_fields(change)}
    del body["changed"]  # what status says
    return Response(status, body)


def _refusal(error: BaseException) -> Response:
    if isinstance(error, psycopg.Error):
        error = translate(error)
    if isinstance(error, DatabaseFailure):
        if error.status == 503:
            text = "The service is unavailable for the moment."
            body = {"error": text, "code": error.code, "retry": error.safe_to_retry}
            return Response(503, body)
        if error.status == 403:
            return Response(403, {"error": "This is not permitted.", "code": error.code})
    elif isinstance(error, RegistryError) and 400 <= error.status < 500:
        body = {"error": error.message, "code": error.code}
        if error.hint:
            body["hint"] = error.hint
        body.update((name, error.detail[name]) for name in error.fields if name in error.detail)
        return Response(error.status, body)
    return Response(500, {"error": "Internal error.", "code": "INTERNAL"})


def _fields(entry: Change | Entry) -> dict[str, Any]:
    return {field.name: _plain(getattr(entry, field.name)) for field in fields(entry)}


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value
