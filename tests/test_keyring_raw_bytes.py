"""Neither a secret nor a key is anywhere on the server's disk: dumps, data, WAL, log.

On a server of its own, which logs as it does by default, stopped before its files are read.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from keyrings import data_key, init, options, reseal, retire, rewrap, rotate, status
from pyapi import embedded, schema
from servers import reachable_directory
from support import MANIFEST, Conn, Json, call, create, load, provider, refused, rows, runtime

MARK = secrets.token_hex(6)
STORED, EARLIER, WANTED = (f"claude-{kind}-{MARK}" for kind in ("stored", "earlier", "wanted"))
TOKEN, OLD_TOKEN = f"token-{MARK}", f"old-token-{MARK}"
LONG = MARK * 20000  # longer than a page: it is stored out of line, in parts
KEK, NEW_KEK, WRONG_KEK = (secrets.token_hex(32) for _ in range(3))
BASE64_KEK = b64encode(secrets.token_bytes(32)).decode()

# The registry is public; that these models can run is no secret, and no model below is listed.
REGISTRY: Json = {
    **MANIFEST,
    "providers": [provider("p", model_prefixes=["claude-"]), provider("q", model_prefixes=["q-"])],
    "runtimes": [
        runtime("claude-code", ("p", [])),
        runtime("hermes", ("q", ["q-1"])),
        runtime("empty"),
    ],
}


@dataclass(slots=True)
class Used:
    """A server that was used: what it keeps, and the data keys that it must not show."""

    home: Path
    dump: bytes = b""
    data_keys: list[str] = field(default_factory=list)


def psql(server: embedded.Server, kek: str, *commands: str) -> list[str]:
    """Run commands in a psql session that brings a KEK; the SQLSTATEs of what was refused."""
    done = subprocess.run(
        [server.bin_dir / "psql", "-X", "-At", "-v", "VERBOSITY=verbose", "-d", server.dsn],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        env={**os.environ, "PGOPTIONS": f"-c runtime_registry.kek={kek}"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not any(key in said for key in (KEK, NEW_KEK, WRONG_KEK))
    return re.findall(r"ERROR:  (\w{5}):", done.stderr)


def work(conn: Conn, used: Used) -> UUID:
    """Every call that seals or opens, and every refusal that has a secret or a key at hand."""
    init(conn)
    used.data_keys.append(data_key(conn))
    ws = create(conn, "claude-code", EARLIER)
    call(conn, "workspace.set_model", ws, STORED, request_id="r")
    call(conn, "workspace.set_secret", ws, "TOKEN", OLD_TOKEN)
    call(conn, "workspace.set_secret", ws, "TOKEN", TOKEN)
    call(conn, "workspace.set_secret", ws, "LONG", LONG)
    assert call(conn, "workspace.get_secret", ws, "LONG").get_secret == LONG
    gone = create(conn, "claude-code", STORED)
    call(conn, "workspace.set_secret", gone, "TOKEN", TOKEN)
    call(conn, "workspace.change_runtime", gone, "hermes")
    call(conn, "workspace.change_runtime", gone, "claude-code", restore=True)
    call(conn, "workspace.delete_secret", gone, "TOKEN")
    call(conn, "workspace.delete_workspace", gone)
    with conn.transaction(force_rollback=True):  # what is taken back reached the WAL too
        call(conn, "workspace.set_model", ws, WANTED)
        call(conn, "workspace.set_secret", ws, "OTHER", TOKEN)

    found = [
        refused(conn, "workspace.change_runtime", ws, "hermes", WANTED),
        refused(conn, "workspace.change_runtime", ws, "empty"),
        refused(conn, "workspace.set_model", ws, WANTED, expected_version=1),
        refused(conn, "workspace.set_model", ws, WANTED, request_id="r"),
        refused(conn, "workspace.set_secret", ws, "MODEL", TOKEN),
        refused(conn, "workspace.set_secret", ws, "TOKEN", TOKEN * 100000),
        refused(conn, "workspace.set_secret", ws, "TOKEN", TOKEN, expected_version=1),
        refused(conn, "workspace.get_secret", ws, "OTHER"),
        refused(conn, "keyring.init"),
        refused(conn, "keyring.retire", 1),
        refused(conn, "keyring.rewrap"),
    ]
    rotate(conn)
    used.data_keys.append(data_key(conn))
    reseal(conn, batch=1)
    reseal(conn)
    retire(conn, 1)
    status(conn, verify=True)

    with conn.transaction(force_rollback=True):
        conn.execute("update workspace.secrets set key_id = 9")
        found.append(refused(conn, "workspace.get_workspace", ws))
        found.append(refused(conn, "workspace.get_secret", ws, "TOKEN"))
        conn.execute("update workspace.secrets set sealed = substr(sealed, 1, 60), key_id = 2")
        found.append(refused(conn, "workspace.change_runtime", ws, "hermes"))
        found.append(refused(conn, "workspace.get_secret", ws, "TOKEN"))
    for kek in ("", WRONG_KEK, BASE64_KEK[:-4], TOKEN):
        with conn.transaction(force_rollback=True):
            conn.execute("select set_config('runtime_registry.kek', %s, true)", [kek])
            found.append(refused(conn, "workspace.set_model", ws, WANTED))
            found.append(refused(conn, "workspace.set_secret", ws, "TOKEN", TOKEN))
            found.append(refused(conn, "workspace.get_workspace", ws))
            found.append(refused(conn, "keyring.rotate"))
            conn.execute("delete from keyring.keys")
            if kek != WRONG_KEK:
                found.append(refused(conn, "keyring.init"))
    for text in (refusal.text for refusal in found):
        assert not any(secret in text for secret in (MARK, KEK, WRONG_KEK, *used.data_keys))

    conn.execute("select set_config('runtime_registry.new_kek', %s, false)", [NEW_KEK])
    rewrap(conn)
    assert call(conn, "workspace.get_workspace", ws).model == STORED
    assert len(rows(conn, "workspace.history", ws)) == 5
    return ws


@contextmanager
def using(used: Used) -> Iterator[embedded.Server]:
    """The server; dumped, checkpointed and stopped at the end."""
    with embedded.server(used.home) as server:
        yield server
        used.dump += subprocess.run(
            [server.bin_dir / "pg_dumpall", "-d", server.dsn], capture_output=True, check=True
        ).stdout
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("checkpoint")


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    """A server that was used through psycopg and psql, and has stopped."""
    with reachable_directory() as directory:
        used = Used(directory / "home")
        with using(used) as server:
            schema.migrate(server.dsn)
            with psycopg.connect(server.dsn, options=options(KEK), autocommit=True) as conn:
                load(conn, REGISTRY)
                ws = work(conn, used)
            # Values as parameters: of a statement that fails the log keeps the text.
            calls = [
                rf"select workspace.set_model($1, $2) \bind {ws} {WANTED} \g",
                rf"select workspace.set_secret($1, $2, $3) \bind {ws} PSQL {TOKEN} \g",
                rf"select workspace.get_secret($1, $2) \bind {ws} TOKEN \g",
                rf"select workspace.set_secret($1, $2, $3) \bind {ws} MODEL {TOKEN} \g",
                rf"select workspace.change_runtime($1, $2, $3) \bind {ws} hermes {STORED} \g",
                rf"select workspace.set_model($1, $2) \bind {ws} {STORED} \g",
            ]
            assert psql(server, NEW_KEK, *calls) == ["PT400", "PT422"]
            for kek in ("", KEK, WRONG_KEK):
                assert psql(server, kek, *calls) == ["PT500"] * 3 + ["PT400"] + ["PT500"] * 2
        yield used


def forms(secret: str) -> dict[str, bytes]:
    """How a secret could be written down."""
    text = secret.encode()
    found = {"text": text, "hex": text.hex().encode(), "UTF-16": secret.encode("utf-16-le")}
    found["base64"] = b64encode(text)[: len(text) // 3 * 4]
    with suppress(ValueError):
        found["raw bytes"] = bytes.fromhex(secret)
    return found


def places(used: Used, needles: dict[str, bytes]) -> list[str]:
    """Where any of these is: files of the server, and the dump."""
    files = {path: path.read_bytes() for path in sorted(used.home.rglob("*")) if path.is_file()}
    assert any("pg_wal" in path.parts for path in files)
    assert any(path.name == embedded.LOG for path in files)
    files[Path("dump")] = used.dump
    return [
        f"{path}: {name}"
        for path, content in files.items()
        for name, needle in needles.items()
        if needle in content
    ]


def test_no_model_no_other_secret_and_no_key_is_on_the_disk(used: Used) -> None:
    keys = [KEK, NEW_KEK, WRONG_KEK, BASE64_KEK[:-4], *used.data_keys]
    assert len(used.data_keys) == len(set(used.data_keys)) == 2
    needles = {
        f"{secret:.16}... as {form}": needle
        for secret in (MARK, *keys)
        for form, needle in forms(secret).items()
    }
    assert places(used, needles) == []


def test_what_is_no_secret_is_found_there(used: Used) -> None:
    """The search above does find what is on the disk."""
    found = places(used, {"name": b"claude-code", "refusal": b"KEY_IN_USE"})
    kinds = [Path(place.split(": ")[0]) for place in found]
    assert any("pg_wal" in path.parts for path in kinds)
    assert any("base" in path.parts for path in kinds)
    assert any(path.name == embedded.LOG for path in kinds)
    assert "dump: name" in found


def test_what_is_stored_plain_is_found_there() -> None:
    """Without a key all that is on the disk: this is what the keyring changes."""
    with reachable_directory() as directory:
        used = Used(directory / "home")
        with using(used) as server:
            schema.migrate(server.dsn)
            with psycopg.connect(server.dsn) as conn:
                load(conn, REGISTRY)
                ws = create(conn, "claude-code", STORED)
                call(conn, "workspace.set_secret", ws, "TOKEN", TOKEN)
        found = places(used, {"model": STORED.encode(), "token": TOKEN.encode()})
        for name in ("model", "token"):
            assert any("pg_wal" in place and place.endswith(name) for place in found)
            assert any("base" in place and place.endswith(name) for place in found)
