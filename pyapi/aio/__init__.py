"""The functions of `pyapi` for `psycopg.AsyncConnection`: the same but for the await.

`pyapi.aio.keyring` has those of `pyapi.keyring`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import psycopg

from .. import access, fleet, registry, workspace
from ..batches import BATCH, PASSING, Course
from ..calls import coroutine
from ..errors import RegistryError
from ..fleet import MoveEntry
from ..follow import LISTEN, raise_unless_passing
from ..keyring import require_idle
from . import keyring

create_workspace = coroutine(workspace.create_workspace_call)
change_runtime = coroutine(workspace.change_runtime_call)
set_model = coroutine(workspace.set_model_call)
clear_model = coroutine(workspace.clear_model_call)
get_workspace = coroutine(workspace.get_workspace_call)
preview_runtime_change = coroutine(workspace.preview_runtime_change_call)
rename_workspace = coroutine(workspace.rename_workspace_call)
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
status = coroutine(registry.status_call)

list_workspaces = coroutine(fleet.list_workspaces_call)
overview = coroutine(fleet.overview_call)
recent_changes = coroutine(fleet.recent_changes_call)
load_registry = coroutine(fleet.load_registry_call)
restore_registry = coroutine(fleet.restore_registry_call)
revisions = coroutine(fleet.revisions_call)
revision_manifest = coroutine(fleet.revision_manifest_call)
deprecations = coroutine(fleet.deprecations_call)
orphans = coroutine(fleet.orphans_call)
move = coroutine(fleet.move_call)
reset_orphans = coroutine(fleet.reset_orphans_call)
changes_after = coroutine(fleet.changes_after_call)
current_cursor = coroutine(fleet.current_cursor_call)
prune_changes = coroutine(fleet.prune_changes_call)

create_token = coroutine(access.create_token_call)
revoke_token = coroutine(access.revoke_token_call)
list_tokens = coroutine(access.list_tokens_call)
authenticate = coroutine(access.authenticate_call)

Opened = AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]


async def follow_changes(
    connect: Callable[[], Opened | Awaitable[Opened]],
    cursor: str | None = None,
    *,
    batch: int = 1000,
    poll: float = 1.0,
    listen: bool = False,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[fleet.FeedEntry]:
    """Yield every committed change behind a cursor, as `pyapi.follow_changes` does.

    `connect` opens a connection: a pool's `connection`, or
    `partial(psycopg.AsyncConnection.connect, conninfo)`.
    """
    stop = stop or asyncio.Event()
    reached = False
    while not stop.is_set():
        try:
            opened = connect()
            async with await opened if isinstance(opened, Awaitable) else opened as conn:
                if listen:
                    await conn.execute(LISTEN)
                while not stop.is_set():
                    page = await changes_after(conn, cursor, batch=batch)
                    await conn.commit()
                    reached = True
                    for entry in page:
                        cursor = entry.cursor
                        yield entry
                        if stop.is_set():
                            return
                    if len(page) == batch:
                        continue
                    if listen:
                        async for _ in conn.notifies(timeout=poll, stop_after=1):
                            pass
                    else:
                        await _wait(stop, poll)
        except (psycopg.Error, RegistryError) as error:
            raise_unless_passing(error, reached)
            await _wait(stop, poll)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class _Batch(Protocol):
    def __call__(
        self, conn: psycopg.AsyncConnection[Any], /, *, after: Any, batch: int, among: Any
    ) -> Awaitable[list[MoveEntry]]: ...


def move_all(
    conn: psycopg.AsyncConnection[Any],
    from_runtime: str,
    to_runtime: str,
    *,
    restore: bool = False,
    request_id: str | None = None,
    after: UUID | str | None = None,
    batch: int = BATCH,
    among: Sequence[UUID | str] | None = None,
    dry_run: bool = False,
    patience: float = 30,
    kek: keyring.Source | None = None,
) -> AsyncIterator[list[MoveEntry]]:
    """Run `move` until all workspaces are moved; see `pyapi.move_all`."""
    call = partial(
        move,
        from_runtime=from_runtime,
        to_runtime=to_runtime,
        restore=restore,
        request_id=request_id,
        dry_run=dry_run,
    )
    return _run(conn, call, Course(after, batch, among, patience), kek)


def reset_all_orphans(
    conn: psycopg.AsyncConnection[Any],
    runtime: str | None = None,
    *,
    request_id: str | None = None,
    after: UUID | str | None = None,
    batch: int = BATCH,
    among: Sequence[UUID | str] | None = None,
    dry_run: bool = False,
    patience: float = 30,
    kek: keyring.Source | None = None,
) -> AsyncIterator[list[MoveEntry]]:
    """Run `reset_orphans` until no orphan is left; see `pyapi.reset_all_orphans`."""
    call = partial(reset_orphans, runtime=runtime, request_id=request_id, dry_run=dry_run)
    return _run(conn, call, Course(after, batch, among, patience), kek)


async def _run(
    conn: psycopg.AsyncConnection[Any], call: _Batch, course: Course, kek: keyring.Source | None
) -> AsyncIterator[list[MoveEntry]]:
    while course.more:
        require_idle(conn)
        try:
            async with conn.transaction() if kek is None else keyring.transaction(conn, kek):
                page = await call(conn, after=course.after, batch=course.batch, among=course.among)
        except PASSING as error:
            await asyncio.sleep(course.failed(error))
            continue
        settled, seconds = course.took(page)
        if settled:
            yield settled
        await asyncio.sleep(seconds)


__all__ = [
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
