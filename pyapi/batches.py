"""Changing a whole fleet: batch after batch, and those that were held once more in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from psycopg import Connection

from .errors import Deadlock, LockTimeout, RegistryError, SerializationFailure
from .fleet import MoveEntry, move, reset_orphans
from .keyring import Source, require_idle, transaction

PASSING = (Deadlock, LockTimeout, SerializationFailure)
"""What has taken back a batch that may go through the next time."""
BATCH = 2000
"""How many workspaces at once. Each batch costs some milliseconds of its own, but holds its
workspaces to its end: who calls one of them may wait so long."""


class _Batch(Protocol):
    def __call__(
        self, conn: Connection[Any], /, *, after: Any, batch: int, among: Any
    ) -> list[MoveEntry]: ...


def move_all(
    conn: Connection[Any],
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
    kek: Source | None = None,
) -> Iterator[list[MoveEntry]]:
    """Run `move` until all workspaces are moved, each batch in a transaction of its own.

    Yields what became of the workspaces, each of them once. Those that somebody holds come last: it
    comes back to them until for `patience` seconds none of them was let go; then they are yielded
    as skipped. A batch that fails for a passing reason, as a deadlock or the connection's
    lock_timeout, is tried again as long.

    It can be stopped anywhere, or killed: what is yielded is committed, and the rest is done by
    calling it again. With the same `request_id` that leaves alone what was moved before, even if it
    is back on `from_runtime`. `kek` is for connections that do not have it, see
    `pyapi.keyring.transaction`.

    Raises what `move` raises; InvalidArgument if the connection is in a transaction.
    """
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
    conn: Connection[Any],
    runtime: str | None = None,
    *,
    request_id: str | None = None,
    after: UUID | str | None = None,
    batch: int = BATCH,
    among: Sequence[UUID | str] | None = None,
    dry_run: bool = False,
    patience: float = 30,
    kek: Source | None = None,
) -> Iterator[list[MoveEntry]]:
    """Run `reset_orphans` until no orphan is left that can be reset; otherwise as `move_all`."""
    call = partial(reset_orphans, runtime=runtime, request_id=request_id, dry_run=dry_run)
    return _run(conn, call, Course(after, batch, among, patience), kek)


def _run(
    conn: Connection[Any], call: _Batch, course: Course, kek: Source | None
) -> Iterator[list[MoveEntry]]:
    while course.more:
        require_idle(conn)
        try:
            with conn.transaction() if kek is None else transaction(conn, kek):
                page = call(conn, after=course.after, batch=course.batch, among=course.among)
        except PASSING as error:
            time.sleep(course.failed(error))
            continue
        settled, seconds = course.took(page)
        if settled:
            yield settled
        time.sleep(seconds)


class Course:
    """Which batch is next, when it is due, and when all is done."""

    def __init__(
        self,
        after: UUID | str | None,
        batch: int,
        among: Sequence[UUID | str] | None,
        patience: float,
    ) -> None:
        self.more = True
        self.after = after
        self.batch = batch
        self.among = None if among is None else list(among)
        self._patience = patience
        self._skipped: list[MoveEntry] = []
        self._pause = self._waited = 0.0

    def took(self, page: list[MoveEntry]) -> tuple[list[MoveEntry], float]:
        """Take a batch into account; return what is settled now, and the seconds to wait."""
        skipped = [entry for entry in page if entry.outcome == "skipped"]
        settled = [entry for entry in page if entry.outcome != "skipped"]
        self._skipped += skipped
        if settled:
            self._pause = self._waited = 0
        if len(page) == self.batch:
            self.after = page[-1].workspace_id
            return settled, 0
        if not self._skipped or self._waited >= self._patience:
            self.more = False
            return settled + self._skipped, 0
        self.after, self.among = None, [entry.workspace_id for entry in self._skipped]
        self._skipped = []
        return settled, self._wait()

    def failed(self, error: RegistryError) -> float:
        """Return the seconds to wait before the batch is tried again; raise if it is too late."""
        if self._waited >= self._patience:
            raise error
        return self._wait()

    def _wait(self) -> float:
        self._pause = min(max(self._pause * 2, 0.05), 1)
        self._waited += self._pause
        return self._pause
