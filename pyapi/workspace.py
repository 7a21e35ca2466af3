"""One workspace at a time.

Every function sends one statement over the caller's connection and neither begins nor commits. A
refusal raises a `pyapi.errors.RegistryError` and, as every error in Postgres, fails the transaction
it happens in: to go on after one, call inside `with conn.transaction():`. `ws` is the workspace's
id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .calls import Call, Statement, columns, each, one, scalar, sync


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did to a workspace, or what it would do (`preview_runtime_change`)."""

    workspace_id: UUID
    version: int
    """The workspace's version after the write; of a preview, the version it was decided on."""
    changed: bool
    """False: everything was as asked for already."""
    previous_runtime: str | None
    """None when the workspace was created."""
    runtime: str | None
    """None when the workspace was deleted."""
    previous_model: str | None
    """None: there was none, or it could not be unsealed."""
    model: str | None
    """None: the workspace has no model."""
    model_source: str
    """Why it is this model: `requested`, `kept`, `restored`, `equivalent`, `default`, or `none`."""
    model_was_reset: bool
    """The old model is not registered for the runtime and was replaced."""
    provider: str | None
    """Who serves the model."""
    billed_to: str | None
    """Who pays: `platform` or `tenant`."""
    billing_changed: bool
    """It is known who pays and who paid before, and they are not the same."""
    needs_restart: bool
    """The running agent does not have this runtime and model yet."""
    model_deprecated: bool
    """The model is registered, but should not be used any more."""
    model_sunset_at: datetime | None
    """When the model ends, if that is known."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace as it is, read in one statement."""

    workspace_id: UUID
    name: str
    runtime: str
    model: str | None
    model_registered: bool | None
    """Whether the model is registered for the runtime; None without a model."""
    provider: str | None
    """Who serves the model."""
    billed_to: str | None
    """Who pays: `platform` or `tenant`."""
    version: int
    """Goes up by one with every write."""
    created_at: datetime
    updated_at: datetime
    model_deprecated: bool
    """The model is registered, but should not be used any more."""
    model_sunset_at: datetime | None
    """When the model ends, if that is known."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One recorded write; the fields it shares with `Change` mean the same."""

    workspace_id: UUID
    version: int
    action: str
    """The function that was called."""
    changed: bool
    previous_runtime: str | None
    runtime: str | None
    previous_model: str | None
    model: str | None
    model_source: str
    provider: str | None
    billed_to: str | None
    actor: str
    """The setting `runtime_registry.actor` of the session, else its user."""
    request_id: str | None
    changed_at: datetime
    secret: str | None
    """The name of the secret that was set or deleted; None: the write was not about one."""
    name: str | None
    """The name that the call gave; None: it gave none."""


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """A secret that a workspace has; never its value."""

    name: str
    updated_at: datetime


_CREATE_WORKSPACE = Statement(
    f"""
    select {columns(Change)} from workspace.create_workspace(
        name => %(name)s::text, runtime => %(runtime)s::text, model => %(model)s::text,
        id => %(id)s::uuid, request_id => %(request_id)s::text)
    """,
    one(Change),
)


def create_workspace_call(
    name: str,
    runtime: str,
    *,
    model: str | None = None,
    id: UUID | str | None = None,
    request_id: str | None = None,
) -> Call[Change]:
    """Create a workspace.

    Without `model` it has none. A model has to be registered for the runtime. Without `id` the
    database makes one. `request_id` makes it safe to repeat: the second call of the same actor with
    the same one returns the first one's answer and creates nothing.

    Raises: InvalidArgument, RuntimeUnsupported, ModelNotRegistered, RegistryUnavailable,
    RequestIdReused, WorkspaceExists.
    """
    return Call(
        _CREATE_WORKSPACE,
        {"name": name, "runtime": runtime, "model": model, "id": id, "request_id": request_id},
    )


_CHANGE_RUNTIME = Statement(
    f"""
    select {columns(Change)} from workspace.change_runtime(
        ws => %(ws)s::uuid, runtime => %(runtime)s::text, model => %(model)s::text,
        restore => %(restore)s::boolean, expected_version => %(expected_version)s::bigint,
        request_id => %(request_id)s::text)
    """,
    one(Change),
)


def change_runtime_call(
    ws: UUID | str,
    runtime: str,
    *,
    model: str | None = None,
    restore: bool = False,
    expected_version: int | None = None,
    request_id: str | None = None,
) -> Call[Change]:
    """Switch a workspace to a runtime, together with its model.

    The model becomes the first of these that applies: `model`, which has to be registered for the
    runtime; the one it has, if that is registered there; with `restore`, the last one the workspace
    had there; an equivalent of the one it has; the runtime's default. `Change.model_source` says
    which, and `Change.model_was_reset` whether the old one had to go.

    `expected_version` refuses the call if the workspace has changed since. `request_id` makes it
    safe to repeat: the second call with the same one returns the first one's answer and writes
    nothing.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict, RequestIdReused,
    RuntimeUnsupported, ModelNotRegistered, NoDefaultModel, RegistryUnavailable, SecretUnreadable,
    EncryptionKeyMissing.
    """
    return Call(
        _CHANGE_RUNTIME,
        {
            "ws": ws,
            "runtime": runtime,
            "model": model,
            "restore": restore,
            "expected_version": expected_version,
            "request_id": request_id,
        },
    )


_SET_MODEL = Statement(
    f"""
    select {columns(Change)} from workspace.set_model(
        ws => %(ws)s::uuid, model => %(model)s::text,
        expected_version => %(expected_version)s::bigint, request_id => %(request_id)s::text)
    """,
    one(Change),
)


def set_model_call(
    ws: UUID | str,
    model: str,
    *,
    expected_version: int | None = None,
    request_id: str | None = None,
) -> Call[Change]:
    """Give a workspace a model, which has to be registered for its runtime.

    `expected_version` and `request_id` as in `change_runtime`.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict, RequestIdReused,
    ModelNotRegistered, RegistryUnavailable, EncryptionKeyMissing.
    """
    return Call(
        _SET_MODEL,
        {
            "ws": ws,
            "model": model,
            "expected_version": expected_version,
            "request_id": request_id,
        },
    )


_CLEAR_MODEL = Statement(
    f"""
    select {columns(Change)} from workspace.clear_model(
        ws => %(ws)s::uuid, expected_version => %(expected_version)s::bigint,
        request_id => %(request_id)s::text)
    """,
    one(Change),
)


def clear_model_call(
    ws: UUID | str, *, expected_version: int | None = None, request_id: str | None = None
) -> Call[Change]:
    """Take a workspace's model away.

    `expected_version` and `request_id` as in `change_runtime`.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict, RequestIdReused.
    """
    params = {"ws": ws, "expected_version": expected_version, "request_id": request_id}
    return Call(_CLEAR_MODEL, params)


_GET_WORKSPACE = Statement(
    f"select {columns(Workspace)} from workspace.get_workspace(ws => %(ws)s::uuid)",
    one(Workspace),
    reads_only=True,
)


def get_workspace_call(ws: UUID | str) -> Call[Workspace]:
    """Read a workspace.

    Raises: InvalidArgument, WorkspaceNotFound, SecretUnreadable, EncryptionKeyMissing.
    """
    return Call(_GET_WORKSPACE, {"ws": ws})


_PREVIEW_RUNTIME_CHANGE = Statement(
    f"""
    select {columns(Change)} from workspace.preview_runtime_change(
        ws => %(ws)s::uuid, runtime => %(runtime)s::text, model => %(model)s::text,
        restore => %(restore)s::boolean)
    """,
    one(Change),
    reads_only=True,
)


def preview_runtime_change_call(
    ws: UUID | str, runtime: str, *, model: str | None = None, restore: bool = False
) -> Call[Change]:
    """Tell what `change_runtime` would answer now, writing nothing and waiting for nobody.

    `Change.version` is the one it was decided on: passed to `change_runtime` as
    `expected_version`, it makes sure that the workspace is still the same. (The registry may have
    changed.)

    Raises what `change_runtime` would.
    """
    params = {"ws": ws, "runtime": runtime, "model": model, "restore": restore}
    return Call(_PREVIEW_RUNTIME_CHANGE, params)


_RENAME_WORKSPACE = Statement(
    f"""
    select {columns(Change)} from workspace.rename_workspace(
        ws => %(ws)s::uuid, name => %(name)s::text, runtime => %(runtime)s::text,
        model => %(model)s::text, restore => %(restore)s::boolean,
        expected_version => %(expected_version)s::bigint, request_id => %(request_id)s::text)
    """,
    one(Change),
)


def rename_workspace_call(
    ws: UUID | str,
    name: str,
    *,
    runtime: str | None = None,
    model: str | None = None,
    restore: bool = False,
    expected_version: int | None = None,
    request_id: str | None = None,
) -> Call[Change]:
    """Give a workspace another name and, in the same change, another runtime or model.

    `runtime`, `model` and `restore` as in `change_runtime`; without `runtime` it keeps the one it
    has. `expected_version` and `request_id` as there too.

    Raises what `change_runtime` does.
    """
    return Call(
        _RENAME_WORKSPACE,
        {
            "ws": ws,
            "name": name,
            "runtime": runtime,
            "model": model,
            "restore": restore,
            "expected_version": expected_version,
            "request_id": request_id,
        },
    )


_DELETE_WORKSPACE = Statement(
    f"""
    select {columns(Change)} from workspace.delete_workspace(
        ws => %(ws)s::uuid, expected_version => %(expected_version)s::bigint)
    """,
    one(Change),
)


def delete_workspace_call(ws: UUID | str, *, expected_version: int | None = None) -> Call[Change]:
    """Delete a workspace and its secrets; its history stays.

    `expected_version` as in `change_runtime`.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict.
    """
    return Call(_DELETE_WORKSPACE, {"ws": ws, "expected_version": expected_version})


_HISTORY = Statement(
    f"select {columns(HistoryEntry)} from workspace.history(ws => %(ws)s::uuid)",
    each(HistoryEntry),
    reads_only=True,
)


def history_call(ws: UUID | str) -> Call[list[HistoryEntry]]:
    """List what was written to a workspace, oldest first; also of a deleted one.

    Raises: InvalidArgument, WorkspaceNotFound, EncryptionKeyMissing.
    """
    return Call(_HISTORY, {"ws": ws})


_SET_SECRET = Statement(
    f"""
    select {columns(Change)} from workspace.set_secret(
        ws => %(ws)s::uuid, name => %(name)s::text, value => %(value)s::text,
        expected_version => %(expected_version)s::bigint)
    """,
    one(Change),
)


def set_secret_call(
    ws: UUID | str, name: str, value: str, *, expected_version: int | None = None
) -> Call[Change]:
    """Give a workspace a secret, such as a provider's credential, or replace it.

    The value is kept as it is; the same one again changes nothing. MODEL is refused: `set_model`
    asks the registry. `expected_version` as in `change_runtime`.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict, EncryptionKeyMissing.
    """
    params = {"ws": ws, "name": name, "value": value, "expected_version": expected_version}
    return Call(_SET_SECRET, params)


_GET_SECRET: Statement[str] = Statement(
    "select workspace.get_secret(ws => %(ws)s::uuid, name => %(name)s::text)",
    scalar,
    reads_only=True,
)


def get_secret_call(ws: UUID | str, name: str) -> Call[str]:
    """Read the value of a workspace's secret; the model is read with `get_workspace`.

    Raises: InvalidArgument, WorkspaceNotFound, SecretNotFound, SecretUnreadable,
    EncryptionKeyMissing.
    """
    return Call(_GET_SECRET, {"ws": ws, "name": name})


_LIST_SECRETS = Statement(
    f"select {columns(SecretEntry)} from workspace.list_secrets(ws => %(ws)s::uuid)",
    each(SecretEntry),
    reads_only=True,
)


def list_secrets_call(ws: UUID | str) -> Call[list[SecretEntry]]:
    """List the names of a workspace's secrets, MODEL among them.

    Raises: InvalidArgument, WorkspaceNotFound.
    """
    return Call(_LIST_SECRETS, {"ws": ws})


_DELETE_SECRET = Statement(
    f"""
    select {columns(Change)} from workspace.delete_secret(
        ws => %(ws)s::uuid, name => %(name)s::text,
        expected_version => %(expected_version)s::bigint)
    """,
    one(Change),
)


def delete_secret_call(
    ws: UUID | str, name: str, *, expected_version: int | None = None
) -> Call[Change]:
    """Remove a workspace's secret, readable or not; if there is none it changes nothing.

    `expected_version` as in `change_runtime`.

    Raises: InvalidArgument, WorkspaceNotFound, VersionConflict.
    """
    params = {"ws": ws, "name": name, "expected_version": expected_version}
    return Call(_DELETE_SECRET, params)


create_workspace = sync(create_workspace_call)
change_runtime = sync(change_runtime_call)
set_model = sync(set_model_call)
clear_model = sync(clear_model_call)
get_workspace = sync(get_workspace_call)
preview_runtime_change = sync(preview_runtime_change_call)
rename_workspace = sync(rename_workspace_call)
delete_workspace = sync(delete_workspace_call)
history = sync(history_call)
set_secret = sync(set_secret_call)
get_secret = sync(get_secret_call)
list_secrets = sync(list_secrets_call)
delete_secret = sync(delete_secret_call)
