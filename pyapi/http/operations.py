"""The table of operations: what each takes, who may, and the one call it makes.

Nothing is decided here. An operation turns a request that was found to be well formed into a call
of `pyapi`; `exchange.py` does everything that all of them have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from ..access import Role
from ..calls import Call
from ..errors import InvalidArgument
from ..fleet import WorkspaceEntry, list_workspaces_call
from ..registry import list_models_call, list_runtimes_call
from ..responses import Response, respond
from ..workspace import (
    Change,
    Workspace,
    change_runtime_call,
    clear_model_call,
    create_workspace_call,
    delete_workspace_call,
    get_workspace_call,
    history_call,
    preview_runtime_change_call,
    rename_workspace_call,
    set_model_call,
)
from .bodies import Body, Field

PAGE = 100
LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """A well-formed request."""

    path: Mapping[str, str]
    ws: UUID
    """Of the path; the nil UUID where the path has none."""
    query: Mapping[str, str]
    body: Mapping[str, Any]
    guards: Mapping[str, Any]
    """`expected_version` of If-Match and `request_id` of Idempotency-Key, where they apply."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    role: Role
    call: Callable[[Asked], Call[Any]]
    """Its docstring is the operation's description."""
    answer: Callable[[Any, Asked], Response] = lambda result, _: respond(result)
    body: Body | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The parameters it takes, with their JSON Schemas."""
    if_match: bool = False
    idempotency_key: bool = False
    refusals: Sequence[str] = ()
    """The codes of the database's own refusals."""


_NAME = Field("string", "What to call the workspace; need not be unique. At most 255 bytes.")
_RUNTIME = Field("string", "The name of a runtime in the registry.")
_MODEL = Field("string", "A model that is registered for the runtime.")
_RESTORE = Field(
    "boolean", "Prefer the model that the workspace last had on the runtime.", needs="runtime"
)
_SWITCH = {"runtime": Field("string", _RUNTIME.about, required=True), "model": _MODEL}
_ID = Field("uuid", "The workspace's id; else the database makes one.")


def _create(asked: Asked) -> Call[Change]:
    """Create a workspace. A model has to be registered for the runtime; without it there is none.

    With an Idempotency-Key it is safe to repeat: the second request creates nothing.
    """
    return create_workspace_call(**{"model": None, **asked.body}, **asked.guards)


def _list(asked: Asked) -> Call[list[WorkspaceEntry]]:
    """List the workspaces by id, without their models, a page at a time."""
    text = asked.query.get("limit", str(PAGE))
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0
    if not 1 <= limit <= LARGEST_PAGE:
        raise InvalidArgument.make("limit", f"is not between 1 and {LARGEST_PAGE}")
    return list_workspaces_call(after=asked.query.get("after"), max_entries=limit)


def shape_page(entries: list[WorkspaceEntry], asked: Asked) -> Response:
    body = respond(entries).body
    full = len(entries) == int(asked.query.get("limit", PAGE))
    return Response(200, {**body, "next": str(entries[-1].workspace_id) if full else None})


def _get(asked: Asked) -> Call[Workspace]:
    """Read a workspace: runtime, model, who serves and bills it and version, of one moment."""
    return get_workspace_call(asked.ws)


def _patch(asked: Asked) -> Call[Change]:
    """Change a workspace's runtime, model and name: all that is named, or nothing.

    Switching the runtime takes the model along where it is registered there, and replaces it where
    it is not; `model_was_reset` and `model_source` say so. A `model` that is named is taken or
    refused, never replaced.
    """
    if "name" in asked.body:
        return rename_workspace_call(asked.ws, **asked.body, **asked.guards)
    if "runtime" in asked.body:
        return change_runtime_call(asked.ws, **asked.body, **asked.guards)
    return set_model_call(asked.ws, asked.body["model"], **asked.guards)


def _delete(asked: Asked) -> Call[Change]:
    """Delete a workspace and all its secrets. Its history stays."""
    return delete_workspace_call(asked.ws, **asked.guards)


def _get_model(asked: Asked) -> Call[Workspace]:
    """Read a workspace's model, with the runtime it runs on; null if it has none."""
    return get_workspace_call(asked.ws)


def shape_model(workspace: Workspace, _: Asked) -> Response:
    body = respond(workspace).body
    return Response(200, {name: body[name] for name in MODEL_FIELDS})


MODEL_FIELDS = (
    "workspace_id",
    "version",
    "runtime",
    "model",
    "model_registered",
    "provider",
    "billed_to",
    "model_deprecated",
    "model_sunset_at",
)


def _put_model(asked: Asked) -> Call[Change]:
    """Give a workspace a model, which has to be registered for its runtime."""
    return set_model_call(asked.ws, asked.body["model"], **asked.guards)


def _delete_model(asked: Asked) -> Call[Change]:
    """Take a workspace's model away."""
    return clear_model_call(asked.ws, **asked.guards)


def _changes(asked: Asked) -> Call[Any]:
    """List what was written to a workspace, oldest first; also of a deleted one."""
    return history_call(asked.ws)


def _preview(asked: Asked) -> Call[Change]:
    """Tell what PATCH with this body would answer now, changing nothing."""
    return preview_runtime_change_call(asked.ws, **asked.body)


def _runtimes(_: Asked) -> Call[Any]:
    """List the runtimes in the registry."""
    return list_runtimes_call()


def _models(asked: Asked) -> Call[Any]:
    """List the models that are registered for a runtime, in order."""
    return list_models_call(asked.path["runtime"])


_CHANGING = ("RUNTIME_UNSUPPORTED", "MODEL_NOT_REGISTERED", "NO_DEFAULT_MODEL")
_ONE = "/workspaces/{workspace_id}"

OPERATIONS: Sequence[Operation] = (
    Operation(
        "list_workspaces",
        "GET",
        "/workspaces",
        "operator",
        _list,
        shape_page,
        query={
            "after": {
                "description": "The `next` of the page before.",
                "schema": {"type": "string", "format": "uuid"},
            },
            "limit": {
                "description": "How many at most.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": LARGEST_PAGE,
                    "default": PAGE,
                },
            },
        },
    ),
    Operation(
        "create_workspace",
        "POST",
        "/workspaces",
        "operator",
        _create,
        body=Body(
            {
                "name": Field("string", _NAME.about, required=True),
                **_SWITCH,
                "id": _ID,
            },
            {"name": "research", "runtime": "hermes", "model": "moonshot/kimi-k2.6"},
        ),
        idempotency_key=True,
        refusals=(
            "WORKSPACE_EXISTS",
            "REQUEST_ID_REUSED",
            "RUNTIME_UNSUPPORTED",
            "MODEL_NOT_REGISTERED",
        ),
    ),
    Operation("get_workspace", "GET", _ONE, "workspace", _get),
    Operation(
        "change_workspace",
        "PATCH",
        _ONE,
        "operator",
        _patch,
        body=Body(
            {"runtime": _RUNTIME, "model": _MODEL, "restore": _RESTORE, "name": _NAME},
            {"runtime": "google-adk"},
        ),
        if_match=True,
        idempotency_key=True,
        refusals=(*_CHANGING, "REQUEST_ID_REUSED"),
    ),
    Operation("delete_workspace", "DELETE", _ONE, "admin", _delete, if_match=True),
    Operation("get_model", "GET", f"{_ONE}/model", "workspace", _get_model, shape_model),
    Operation(
        "set_model",
        "PUT",
        f"{_ONE}/model",
        "workspace",
        _put_model,
        body=Body(
            {"model": Field("string", _MODEL.about, required=True)},
            {"model": "platform:gemini-2.5-flash"},
        ),
        if_match=True,
        idempotency_key=True,
        refusals=("MODEL_NOT_REGISTERED", "REQUEST_ID_REUSED"),
    ),
    Operation(
        "clear_model",
        "DELETE",
        f"{_ONE}/model",
        "operator",
        _delete_model,
        if_match=True,
        idempotency_key=True,
        refusals=("REQUEST_ID_REUSED",),
    ),
    Operation("list_changes", "GET", f"{_ONE}/changes", "workspace", _changes),
    Operation(
        "preview_change",
        "POST",
        f"{_ONE}/preview",
        "workspace",
        _preview,
        body=Body({**_SWITCH, "restore": _RESTORE}, {"runtime": "google-adk"}),
        refusals=_CHANGING,
    ),
    Operation("list_runtimes", "GET", "/runtimes", "workspace", _runtimes),
    Operation(
        "list_models",
        "GET",
        "/runtimes/{runtime}/models",
        "workspace",
        _models,
        refusals=("RUNTIME_UNSUPPORTED",),
    ),
)
