"""A proxy for one connection, which it cuts after some message or inside one."""

from __future__ import annotations

import select
import socket
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from databases import in_thread
from sessions import OPTIONS, SECONDS
from support import Conn


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a connection is cut: when so many messages of a side and some bytes of its next one
    have gone through."""

    sender: str
    """`client` or `server`."""
    messages: int
    bytes: int = 0


@dataclass(slots=True)
class Proxy:
    """Takes one connection to a server."""

    dsn: str
    cut: Cut | None = None
    on_cut: Callable[[], None] = lambda: None
    was_cut: bool = False
    passed: Counter[str] = field(default_factory=Counter)
    """How many messages of each side have gone through."""
    _served: Future[None] | None = None

    def connect(self, autocommit: bool = False) -> Conn:
        """Open the connection."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._served = in_thread(self._serve, listener)
        dsn = make_conninfo(
            self.dsn,
            host="127.0.0.1",
            port=listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )
        return psycopg.connect(dsn, options=OPTIONS, autocommit=autocommit)

    def wait(self) -> None:
        """Wait until the connection is closed on both sides."""
        assert self._served
        self._served.result(SECONDS)

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            listener.settimeout(SECONDS)
            client, _ = listener.accept()
        with client, connect(self.dsn) as server, suppress(ConnectionError):
            ends = {client: ("client", server), server: ("server", client)}
            held = dict.fromkeys(ends, b"")
            for sender, _ in ends.values():
                self._cut_if_due(sender)
            while not self.was_cut:
                for end in select.select(list(ends), [], [])[0]:
                    sender, other = ends[end]
                    if not (received := end.recv(65536)):
                        return
                    held[end] = self._pass(sender, held[end] + received, other)

    def _pass(self, sender: str, data: bytes, to: socket.socket) -> bytes:
        """Let whole messages through until it is time to cut; what is held back."""
        while size := message_size(data, untyped=sender == "client" and not self.passed[sender]):
            if self._is_due(sender) and self.cut:
                to.sendall(data[: min(self.cut.bytes, size - 1)])
                self._end()
            if self.was_cut:
                break
            to.sendall(data[:size])
            data = data[size:]
            self.passed[sender] += 1
            self._cut_if_due(sender)
        return data

    def _is_due(self, sender: str) -> bool:
        return self.cut is not None and (
            (sender, self.passed[sender]) == (self.cut.sender, self.cut.messages)
        )

    def _cut_if_due(self, sender: str) -> None:
        if self.cut and not self.cut.bytes and self._is_due(sender):
            self._end()

    def _end(self) -> None:
        self.was_cut = True
        self.on_cut()


def message_size(data: bytes, untyped: bool) -> int:
    """The size of the message that data begins with; 0 if it is not complete."""
    begin = 0 if untyped else 1  # a byte for its type, which a client's first does not have
    if len(data) < begin + 4:
        return 0
    size = begin + int(struct.unpack_from("!i", data, begin)[0])
    return size if size <= len(data) else 0


def connect(dsn: str) -> socket.socket:
    """Connect to a server as libpq does."""
    where = conninfo_to_dict(dsn)
    host, port = str(where["host"]), int(where["port"] or 5432)
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(f"{host}/.s.PGSQL.{port}")
    return connected
