"""Following the feed for ever, over as many connections as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

import psycopg

from .errors import DatabaseFailure, RegistryError, translate
from .fleet import FeedEntry, changes_after

LISTEN: Final = "listen runtime_registry_changes"


def follow_changes(
    connect: Callable[[], AbstractContextManager[psycopg.Connection[Any]]],
    cursor: str | None = None,
    *,
    batch: int = 1000,
    poll: float = 1.0,
    listen: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[FeedEntry]:
    """Yield every committed change behind a cursor, each exactly once, and wait for more.

    `connect` opens a connection: a pool's `connection`, or
    `partial(psycopg.connect, conninfo)`. Until the next one, nothing else may use it; no
    transaction is open on it while you work on a change. When it is lost, another is opened, every
    `poll` seconds, and the feed goes on where it was. If the first one cannot be opened or used,
    that is raised.

    Each change carries its `cursor`. Store it together with what you did about the change, and pass
    it in when you start again; without one it begins with the oldest change that was not pruned.

    New changes are looked for every `poll` seconds. With `listen`, those that were made with the
    setting `runtime_registry.notify = on` are found at once (but not through a transaction pooler).
    It ends when `stop` is set.

    Raises: InvalidArgument as `changes_after` does, and DatabaseFailure if it would not help to try
    again.
    """
    stop = stop or threading.Event()
    reached = False
    while not stop.is_set():
        try:
            with connect() as conn:
                if listen:
                    conn.execute(LISTEN)
                while not stop.is_set():
                    page = changes_after(conn, cursor, batch=batch)
                    conn.commit()
                    reached = True
                    for entry in page:
                        cursor = entry.cursor
                        yield entry
                        if stop.is_set():
                            return
                    if len(page) == batch:
                        continue
                    if listen:
                        list(conn.notifies(timeout=poll, stop_after=1))
                    else:
                        stop.wait(poll)
        except (psycopg.Error, RegistryError) as error:
            raise_unless_passing(error, reached)
            stop.wait(poll)


def raise_unless_passing(error: psycopg.Error | RegistryError, reached: bool) -> None:
    """Raise what following cannot survive: a new connection would not help, or none ever worked."""
    if isinstance(error, psycopg.Error):
        failure = translate(error, harmless=True)
        failure.__cause__ = error
    else:
        failure = error
    # A pool that was closed is no failure to be survived; psycopg_pool need not be installed.
    closed = type(error).__name__ == "PoolClosed"
    if (
        not reached
        or closed
        or not (isinstance(failure, DatabaseFailure) and failure.safe_to_retry)
    ):
        raise failure
