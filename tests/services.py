"""The HTTP service as it really runs: a process of its own on a loopback port."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pyapi import create_token
from pyapi.access import Role, new_token, token_hash

SECONDS = 60
"""How long to wait for what has to come."""
SCRIPT = Path(sys.executable).parent / "runtime-registry"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.text)

    @property
    def code(self) -> str | None:
        """The code of a problem document."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        assert self.body["status"] == self.status
        assert self.body["detail"] == self.body["error"]
        return str(self.body["code"])


@dataclass(slots=True)
class Service:
    """A running service."""

    process: subprocess.Popen[str]
    lines: queue.Queue[dict[str, Any] | None]
    port: int = 0
    logged: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request over a connection of its own; a body that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            conn.request(method, path, body, sent)
            response = conn.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read().decode())
        finally:
            conn.close()

    def log_of(self, request_id: str) -> dict[str, Any]:
        """Wait for the line that the log has of a request."""
        return self.line(lambda line: line.get("request_id") == request_id)

    def line(self, wanted: Any) -> dict[str, Any]:
        """Wait for a line of the log; lines are looked at once."""
        while (line := self.lines.get(timeout=SECONDS)) is not None:
            self.logged.append(line)
            if wanted(line):
                return line
        raise AssertionError(f"the service ended with {self.process.wait()}: {self.logged[-3:]}")

    def stop(self) -> int:
        """Tell it to stop, wait until it has, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def running(dsn: str, **settings: str) -> Iterator[Service]:
    """Start a service for the length of the block."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment |= {f"RUNTIME_REGISTRY_HTTP_{key.upper()}": settings[key] for key in settings}
    process = subprocess.Popen(
        [SCRIPT, "serve", "--database", dsn, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines))
    reader.start()
    service = Service(process, lines)
    try:
        started = service.line(lambda line: "running on" in line["message"])
        service.port = int(started["message"].split()[3].rpartition(":")[2])
        yield service
    finally:
        process.kill()
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], lines: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stderr
    with process.stderr as log:
        for text in log:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"message": f"NOT JSON: {text}"}
            lines.put(line)
    lines.put(None)


def token_for(
    conn: psycopg.Connection[Any], name: str, role: Role, workspace: object = None
) -> str:
    """Make a token known and return it."""
    secret = new_token()
    create_token(
        conn, name, role, token_hash(secret), workspace_id=str(workspace) if workspace else None
    )
    return secret
