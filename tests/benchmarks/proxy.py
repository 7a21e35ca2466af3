"""A network on loopback: a TCP port in front of a server's unix socket that passes everything on
half a round trip later, each way.

It is a process of its own, so that it does not wait for the interpreter of whom it delays. Each
direction has two threads: one notes when bytes came, the other sends them when they are due, so
that what comes close together also leaves close together.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from psycopg.conninfo import conninfo_to_dict, make_conninfo

PR_SET_TIMERSLACK = 29


@contextmanager
def delayed(dsn: str, round_trip: float) -> Iterator[str]:
    """The conninfo of the same server, so many seconds away, for the length of the block."""
    parts = conninfo_to_dict(dsn)
    target = f"{parts['host']}/.s.PGSQL.{parts['port']}"
    ours, theirs = multiprocessing.Pipe()
    # Spawned: a fork of a process with threads may hang.
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(target, round_trip / 2, theirs), daemon=True
    )
    process.start()
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(target: str, delay: float, port: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port.send(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX)
        server.connect(target)
        for source, sink in ((client, server), (server, client)):
            due = queue.SimpleQueue[tuple[float, bytes]]()
            threading.Thread(target=_receive, args=(source, due, delay), daemon=True).start()
            threading.Thread(target=_send, args=(sink, due), daemon=True).start()


def _receive(
    source: socket.socket, due: queue.SimpleQueue[tuple[float, bytes]], delay: float
) -> None:
    data = b"some"
    while data:
        try:
            data = source.recv(65536)
        except ConnectionError:
            data = b""
        due.put((time.perf_counter() + delay, data))


def _send(sink: socket.socket, due: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    # Linux runs a thread's timers up to 50 us late unless told otherwise; others have no prctl.
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(PR_SET_TIMERSLACK, 1)
    while True:
        moment, data = due.get()
        time.sleep(max(0.0, moment - time.perf_counter()))
        try:
            if not data:
                return sink.shutdown(socket.SHUT_WR)
            sink.sendall(data)
        except OSError:
            return None  # the other side has gone
