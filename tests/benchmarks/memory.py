"""The most memory a backend had while it was at work, as Linux's /proc tells it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from .table import Memory

PAUSE = 0.005


@contextmanager
def watched(conn: psycopg.Connection[Any], name: str) -> Iterator[Future[Memory]]:
    """Watch the connection's backend for the length of the block; the answer is there after it.

    The kernel keeps the peak of all resident memory, but not of what is the process's own: that is
    looked at every few milliseconds.
    """
    status = Path(f"/proc/{conn.info.backend_pid}/status")
    answer, done = Future[Memory](), threading.Event()
    private = _kibibytes(status, "RssAnon")

    def watch() -> None:
        nonlocal private
        while not done.wait(PAUSE):
            private = max(private, _kibibytes(status, "RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        yield answer
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    resident = _kibibytes(status, "VmHWM")
    answer.set_result(Memory(name, seconds, private * 1024, resident * 1024))


def _kibibytes(status: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found
    return int(found[1])
