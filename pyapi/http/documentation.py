"""What OpenAPI says of an operation, with an example for every status.

The examples are made as the answers are, of results and errors like those that the calls give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, create_model

from ..access import Caller
from ..errors import (
    ConnectionLost,
    InvalidArgument,
    ModelNotRegistered,
    NoDefaultModel,
    RegistryError,
    RequestIdReused,
    RuntimeUnsupported,
    VersionConflict,
    WorkspaceExists,
)
from ..fleet import WorkspaceEntry
from ..registry import ModelEntry, RuntimeEntry
from ..responses import respond
from ..workspace import Change, HistoryEntry, Workspace
from . import problems
from .auth import REALM, authorize, not_found
from .bodies import Body
from .operations import MODEL_FIELDS, OPERATIONS, Asked, Operation, shape_model, shape_page
from .problems import Refused

WS = UUID("018f4f6e-0000-7000-8000-000000000001")
_OTHER = UUID("018f4f6e-0000-7000-8000-000000000002")
_THEN = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


# The answers, as schemas


def _shape(title: str, row_type: type[Any], /, **changes: Any) -> type[BaseModel]:
    """The schema of a result's fields; None takes a field away."""
    hints = get_type_hints(row_type)
    kept: dict[str, Any] = {field.name: (hints[field.name], ...) for field in fields(row_type)}
    kept.update(changes)
    kept = {key: value for key, value in kept.items() if value is not None}
    return create_model(title, __config__=ConfigDict(extra="forbid"), **kept)


def _list(name: str, entry: type[BaseModel], **more: Any) -> type[BaseModel]:
    config = ConfigDict(extra="forbid")
    return create_model(name, __config__=config, items=(list[entry], ...), **more)  # type: ignore[valid-type]


_WORD = Literal["updated", "unchanged", "created", "deleted"]
_CHANGED = _shape("Changed", Change, status=(_WORD, ...), changed=None)
_SHAPES: dict[str, type[BaseModel]] = {
    "list_workspaces": _list(
        "Workspaces", _shape("WorkspaceEntry", WorkspaceEntry), next=(UUID | None, ...)
    ),
    "get_workspace": _shape("Workspace", Workspace),
    "get_model": _shape(
        "Model",
        Workspace,
        **{field.name: None for field in fields(Workspace) if field.name not in MODEL_FIELDS},
    ),
    "list_changes": _list("Changes", _shape("HistoryEntry", HistoryEntry)),
    "list_runtimes": _list("Runtimes", _shape("RuntimeEntry", RuntimeEntry)),
    "list_models": _list("Models", _shape("ModelEntry", ModelEntry)),
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457). Programs branch on `code`.",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "error": {"type": "string", "description": "The same as `detail`."},
        "hint": {"type": "string", "description": "What to do next."},
        "runtime": {"type": "string"},
        "model": {"type": ["string", "null"], "description": "The model that was sent."},
        "valid_models": {"type": "array", "items": {"type": "string"}},
        "valid_models_total": {"type": "integer"},
        "valid_runtimes": {"type": "array", "items": {"type": "string"}},
        "workspace_id": {"type": "string", "format": "uuid"},
        "version": {"type": "integer"},
        "retry": {"type": "boolean", "description": "Whether it may be sent again as it is."},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}


# Examples of answers

_SWITCHED = Change(
    workspace_id=WS,
    version=2,
    changed=True,
    previous_runtime="hermes",
    runtime="google-adk",
    previous_model="moonshot/kimi-k2.6",
    model="platform:gemini-2.5-pro",
    model_source="default",
    model_was_reset=True,
    provider="platform",
    billed_to="platform",
    billing_changed=False,
    needs_restart=True,
    model_deprecated=False,
    model_sunset_at=None,
)
_SET = replace(
    _SWITCHED,
    version=3,
    previous_runtime="google-adk",
    previous_model="platform:gemini-2.5-pro",
    model="platform:gemini-2.5-flash",
    model_source="requested",
    model_was_reset=False,
)
_CLEARED = replace(
    _SET,
    version=4,
    previous_model="platform:gemini-2.5-flash",
    model=None,
    model_source="none",
    provider=None,
    billed_to=None,
)
_DELETED = replace(_CLEARED, version=5, runtime=None, previous_model=None, needs_restart=False)
_CREATED = replace(
    _SWITCHED,
    version=1,
    previous_runtime=None,
    runtime="hermes",
    previous_model=None,
    model="moonshot/kimi-k2.6",
    model_source="requested",
    model_was_reset=False,
    needs_restart=False,
)
_STATE = Workspace(
    workspace_id=WS,
    name="research",
    runtime="google-adk",
    model="platform:gemini-2.5-pro",
    model_registered=True,
    provider="platform",
    billed_to="platform",
    version=2,
    created_at=_THEN,
    updated_at=_THEN,
    model_deprecated=False,
    model_sunset_at=None,
)
_ENTRY = WorkspaceEntry(WS, "research", "google-adk", 2, _THEN, _THEN)
_HISTORY = HistoryEntry(
    workspace_id=WS,
    version=2,
    action="change_runtime",
    changed=True,
    previous_runtime="hermes",
    runtime="google-adk",
    previous_model="moonshot/kimi-k2.6",
    model="platform:gemini-2.5-pro",
    model_source="default",
    provider="platform",
    billed_to="platform",
    actor="deploy",
    request_id=None,
    changed_at=_THEN,
    secret=None,
    name=None,
)
_NOTHING_ASKED = Asked({}, WS, {}, {}, {})
_EXAMPLES: dict[str, dict[str, Any]] = {
    "list_workspaces": shape_page([_ENTRY], _NOTHING_ASKED).body,
    "create_workspace": respond(_CREATED).body,
    "get_workspace": respond(_STATE).body,
    "change_workspace": respond(_SWITCHED).body,
    "delete_workspace": respond(_DELETED).body,
    "get_model": shape_model(_STATE, _NOTHING_ASKED).body,
    "set_model": respond(_SET).body,
    "clear_model": respond(_CLEARED).body,
    "list_changes": respond([_HISTORY]).body,
    "preview_change": respond(_SWITCHED).body,
    "list_runtimes": respond(
        [
            RuntimeEntry(
                runtime="google-adk",
                model_policy="registered",
                default_model="platform:gemini-2.5-pro",
                models=6,
                providers=["platform", "google"],
            )
        ]
    ).body,
    "list_models": respond(
        [
            ModelEntry(
                position=1,
                model="platform:gemini-2.5-pro",
                provider="platform",
                billed_to="platform",
                is_default=True,
                deprecated_at=None,
                sunset_at=None,
                successor=None,
            )
        ]
    ).body,
}


# Examples of refusals


def _raised(error: BaseException) -> dict[str, Any]:
    return problems.of(error)[0].body


def _error(
    kind: type[RegistryError],
    status: int,
    code: str,
    message: str,
    hint: str,
    detail: dict[str, Any],
) -> dict[str, Any]:
    return _raised(kind(status, code, message, hint, detail))


def _forbidden(operation: Operation) -> dict[str, Any]:
    try:
        authorize(Caller("assistant", "workspace", WS), operation.role, WS)
    except Refused as refused:
        return _raised(refused)
    raise AssertionError(f"{operation.name} is open to every role")


_CODES: dict[str, dict[str, Any]] = {
    "WORKSPACE_EXISTS": _error(
        WorkspaceExists,
        409,
        "WORKSPACE_EXISTS",
        f"The workspace id {WS} is taken.",
        "Leave id out to get a new one. The id of a deleted workspace stays taken.",
        {"workspace_id": str(WS)},
    ),
    "RUNTIME_UNSUPPORTED": _error(
        RuntimeUnsupported,
        422,
        "RUNTIME_UNSUPPORTED",
        "The registry has no runtime google-ads.",
        "Take one of valid_runtimes.",
        {"runtime": "google-ads", "valid_runtimes": ["claude-code", "hermes", "google-adk"]},
    ),
    "MODEL_NOT_REGISTERED": _error(
        ModelNotRegistered,
        422,
        "MODEL_NOT_REGISTERED",
        "The model is not registered for the runtime hermes.",
        "Take one of valid_models, or a runtime that has this model.",
        {
            "runtime": "hermes",
            "model": "platform:gemini-2.5-pro",
            "valid_models": ["kimi-coding/kimi-k2", "moonshot/kimi-k2.6", "moonshot/kimi-k2.5"],
            "valid_models_total": 3,
        },
    ),
    "NO_DEFAULT_MODEL": _error(
        NoDefaultModel,
        422,
        "NO_DEFAULT_MODEL",
        "The current model is not registered for the runtime external, which has no default model.",
        "Take another runtime, or name a model that this one accepts in the same call. "
        "Nothing was changed.",
        {"runtime": "external", "valid_models": [], "valid_models_total": 0},
    ),
    "REQUEST_ID_REUSED": _error(
        RequestIdReused,
        422,
        "REQUEST_ID_REUSED",
        "The request_id was already used for a different request on this workspace.",
        "Take a new request_id for a new request.",
        {"workspace_id": str(WS)},
    ),
    "VERSION_CONFLICT": _error(
        VersionConflict,
        409,
        "VERSION_CONFLICT",
        "The workspace is at version 3, not at the expected 2.",
        "Somebody else changed the workspace. Read it again and decide anew.",
        {"workspace_id": str(WS), "version": 3},
    ),
}


def _refusals(operation: Operation) -> Iterator[dict[str, Any]]:
    """Yield an example of every problem that an operation can answer with."""
    yield _raised(
        Refused(401, "UNAUTHORIZED", "This takes a valid token: Authorization: Bearer ...")
    )
    yield _raised(InvalidArgument.make("query", "has a parameter that is not known"))
    if operation.role != "workspace":
        yield _forbidden(operation)
    if "workspace_id" in operation.path:
        yield _raised(InvalidArgument.make("workspace_id", "is not a UUID"))
        yield _raised(not_found(_OTHER))
    if operation.body:
        yield from _body_refusals(operation.body)
    if operation.if_match:
        yield _CODES["VERSION_CONFLICT"]
        yield _raised(
            Refused(
                428,
                "PRECONDITION_REQUIRED",
                "This takes If-Match with the ETag that the workspace had when it was read, or *.",
            )
        )
    for code in operation.refusals:
        yield _CODES[code]
    yield _raised(RuntimeError())
    yield _raised(ConnectionLost.make(harmless=True))


def _body_refusals(body: Body) -> Iterator[dict[str, Any]]:
    yield _raised(Refused(400, "MALFORMED_BODY", "The body is not JSON."))
    yield _raised(Refused(413, "BODY_TOO_LARGE", "The body has more than 16384 bytes."))
    yield _raised(
        Refused(415, "UNSUPPORTED_MEDIA_TYPE", "The body has to be application/json, uncompressed.")
    )
    yield _raised(
        Refused(
            422,
            "INVALID_BODY",
            "The body is not what this request takes.",
            problems=body.problems({"modell": "opus"}),
        )
    )


# What FastAPI is told

_HEADER: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "example": REALM}},
    403: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    503: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
}
_ETAG = {"ETag": {"description": "The workspace's version.", "schema": {"type": "string"}}}
_VERSIONED = {
    "create_workspace",
    "get_workspace",
    "change_workspace",
    "get_model",
    "set_model",
    "clear_model",
    "preview_change",
}


def status_of(operation: Operation) -> int:
    """Return the status of success."""
    return 201 if operation.name == "create_workspace" else 200


def responses(operation: Operation) -> dict[int | str, dict[str, Any]]:
    """Document every status of an operation."""
    success: dict[str, Any] = {
        "description": "Done, and committed." if operation.method != "GET" else "Found.",
        "model": _SHAPES.get(operation.name, _CHANGED),
        "content": {"application/json": {"example": _EXAMPLES[operation.name]}},
    }
    if operation.name in _VERSIONED:
        success["headers"] = _ETAG
    if operation.name == "create_workspace":
        place = {"description": "Its path.", "schema": {"type": "string"}}
        success["headers"] = {**_ETAG, "Location": place}
        success["links"] = {
            name: {
                "operationId": name,
                "parameters": {"workspace_id": "$response.body#/workspace_id"},
            }
            for name in ("get_workspace", "change_workspace", "set_model", "clear_model")
        }
    found: dict[int | str, dict[str, Any]] = {status_of(operation): success}
    for body in _refusals(operation):
        status = body["status"]
        entry = found.setdefault(
            status,
            {
                "description": problems.title_of(status),
                "content": {problems.MEDIA_TYPE: {"schema": PROBLEM_SCHEMA, "examples": {}}},
                **({"headers": _HEADER[status]} if status in _HEADER else {}),
            },
        )
        examples = entry["content"][problems.MEDIA_TYPE]["examples"]
        examples.setdefault(body["code"], {"value": body})
    return found


def extra(operation: Operation) -> dict[str, Any]:
    """Document what an operation takes."""
    parameters: list[dict[str, Any]] = []
    if "{workspace_id}" in operation.path:
        identifier = {"type": "string", "format": "uuid"}
        parameters.append(_parameter("workspace_id", "path", identifier, required=True))
    if "{runtime}" in operation.path:
        text = {"type": "string", "minLength": 1}
        parameters.append(_parameter("runtime", "path", text, required=True))
    parameters += [
        {"name": name, "in": "query", "required": False, **about}
        for name, about in operation.query.items()
    ]
    if operation.if_match:
        about = 'The ETag it had when it was read, as in `"2"`: refused if it has changed since.'
        tag = {"type": "string", "pattern": '^(\\*|"[0-9]{1,18}")$'}
        parameters.append(_parameter("If-Match", "header", tag, about))
    if operation.idempotency_key:
        about = "Makes it safe to repeat: sent again with the same key it takes effect once."
        key = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        parameters.append(_parameter("Idempotency-Key", "header", key, about))
    found: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if operation.body:
        content = {"schema": operation.body.schema(), "example": operation.body.example}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    return found


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Put the examples in once more, because FastAPI leaves out what is null in them."""
    for operation in OPERATIONS:
        found = document["paths"][operation.path][operation.method.lower()]["responses"]
        success = found[str(status_of(operation))]["content"]["application/json"]
        success["example"] = _EXAMPLES[operation.name]
    return document


def _parameter(
    name: str, place: str, schema: dict[str, Any], about: str = "", *, required: bool = False
) -> dict[str, Any]:
    described = {"description": about} if about else {}
    return {"name": name, "in": place, "required": required, "schema": schema, **described}
