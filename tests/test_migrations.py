"""Installing, migrating and removing the schema, from the checkout and from the wheel."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

import databases
from databases import Database, in_thread
from pyapi import change_runtime, create_workspace, embedded, load_registry, schema
from pyapi.errors import (
    ConnectionLost,
    DatabaseFailure,
    DatabaseUnsupported,
    DependentObjects,
    InvalidArgument,
    LockTimeout,
    PermissionDenied,
    ReadOnlyDatabase,
    SchemaTooNew,
    WorkspacesExist,
)
from servers import Server
from support import Conn, one

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
RENEW = os.environ.get("RENEW_GOLDEN")  # what `make golden` sets
REVISIONS = sorted(file.name[:4] for file in (ROOT / "alembic" / "versions").glob("*.py"))
ROLES = ["runtime_registry_admin", "runtime_registry_operator", "runtime_registry_reader"]


def dump(database: Database, *options: str) -> str:
    """All of a database as pg_dump shows it, less what differs between two runs or releases."""
    own = "--exclude-table-data=workspace.numbering"  # what it says is true in one database only
    done = subprocess.run(
        [database.server.bin("pg_dump"), own, *options, "-d", database.dsn],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # The keys of \restrict are random, which settings a dump begins with depends on its release,
    # and newer releases number the versions of every column.
    passing = re.compile(
        r"(?m)^(\\(un)?restrict |-- Dumped |SET \w+ = |SELECT pg_catalog.set_c"
        r"|ALTER TABLE ONLY .* SET \(pg_attver=).*\n"
    )
    return passing.sub("", done.stdout)


def installed_by_psql(database: Database) -> Database:
    database.psql("-q", "-1", "-f", ROOT / "sql" / "install.sql")
    return database


def alembic(database: Database, *arguments: str, **environment: str) -> str:
    """Run alembic's own command in the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database.dsn, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """An empty database."""
    with databases.create(server) as empty:
        yield empty


@pytest.fixture(scope="module")
def installed(server: Server) -> Iterator[str]:
    """The dump of a database that psql has installed everything in."""
    with databases.create(server) as database:
        yield dump(installed_by_psql(database))


# Installing


def test_migrating_and_psql_install_the_same(database: Database, installed: str) -> None:
    assert schema.migrate(database.dsn) == REVISIONS
    assert dump(database) == installed


def test_the_installed_sql_is_one_text_that_any_client_can_run(
    database: Database, installed: str
) -> None:
    with database.connect() as conn:
        conn.execute(schema.install_sql().encode())
    assert dump(database) == installed
    assert not re.search(r"(?m)^\\", schema.install_sql())


def test_a_database_that_psql_installed_is_up_to_date(database: Database) -> None:
    assert schema.current_revision(database.dsn) is None
    installed_by_psql(database)
    assert schema.current_revision(database.dsn) == schema.head_revision()
    assert schema.migrate(database.dsn) == []


def test_the_current_revision_can_be_read_over_a_connection_of_any_kind(database: Database) -> None:
    conn: Conn = psycopg.connect(database.dsn, row_factory=psycopg.rows.dict_row)
    with conn:
        assert schema.current_revision(conn) is None
        conn.rollback()
        schema.migrate(database.dsn)
        assert schema.current_revision(conn) == schema.head_revision()


def test_the_head_is_alembics() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(toml_file=ROOT / "pyproject.toml")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head_revision()]


def test_the_packaged_manifest_can_be_loaded(database: Database) -> None:
    schema.migrate(database.dsn)
    with database.connect() as conn:
        assert load_registry(conn, schema.default_manifest()).loaded


def test_the_schema_is_the_golden_one(database: Database) -> None:
    golden = GOLDEN / "schema.sql"
    schema.migrate(database.dsn)
    now = dump(database, "--no-owner")
    if RENEW:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(now, "utf-8")
    assert now == golden.read_text("utf-8"), (
        "The schema has changed. If it should have: `make golden`, and read the difference."
    )


def test_released_revisions_stay_as_they_are() -> None:
    """The list is sha256sum's: `sha256sum -c tests/golden/revisions.sha256` checks it too."""
    golden = GOLDEN / "revisions.sha256"
    versions = (ROOT / "alembic" / "versions").iterdir()
    now = {
        file.relative_to(ROOT).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(versions)
        if file.is_file()
    }
    lines = golden.read_text("utf-8").splitlines() if golden.exists() else []
    released = {name: digest for digest, name in (line.split("  ") for line in lines)}
    if RENEW:
        released = now | released
        golden.parent.mkdir(exist_ok=True)
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(released.items()))
        golden.write_text(text, "utf-8")
    assert set(now) == set(released), "A revision is new or gone. If it is new: `make golden`."
    assert now == released, (
        "A revision has changed. There are databases that have run it as it was: add another one."
    )


@pytest.mark.parametrize("theirs", ["", "create table registry.alembic_version (version_num text)"])
def test_a_schema_of_somebody_else_is_not_built_upon(database: Database, theirs: str) -> None:
    # Its owner could put functions beside ours that ours would then call, with their rights.
    with database.connect(autocommit=True) as conn:
        conn.execute("create schema registry authorization pg_monitor")
        conn.execute(f"set role pg_monitor; {theirs}".encode())
    before = dump(database)
    with pytest.raises(AssertionError, match='"code": "DATABASE_UNSUPPORTED"'):
        installed_by_psql(database)
    assert dump(database) == before
    with pytest.raises(DatabaseUnsupported) as caught:
        schema.migrate(database.dsn)
    assert caught.value.status == 422
    assert dump(database) == before


# Removing


def test_up_down_and_up_again(database: Database) -> None:
    empty = dump(database)
    schema.migrate(database.dsn)
    full = dump(database)
    assert schema.downgrade(database.dsn) == REVISIONS[::-1]
    assert dump(database) == empty
    assert schema.current_revision(database.dsn) is None
    assert schema.downgrade(database.dsn) == []
    assert dump(database) == empty
    assert schema.migrate(database.dsn) == REVISIONS
    assert dump(database) == full


@pytest.mark.parametrize(("before", "revision"), list(pairwise(REVISIONS)))
def test_a_revision_can_be_undone(database: Database, before: str, revision: str) -> None:
    assert schema.migrate(database.dsn, before)[-1] == before
    as_before = dump(database)
    assert schema.migrate(database.dsn, revision) == [revision]
    assert dump(database) != as_before
    assert schema.downgrade(database.dsn, before) == [revision]
    assert dump(database) == as_before


# What a release derives from the manifest.
DERIVED = " union all ".join(
    f"select t::text from registry.{table} as t"
    for table in ("providers", "runtimes", "arms", "models", "claims", "equivalents")
)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_database_in_use_goes_on_after_an_upgrade_and_after_its_undoing(
    database: Database, server: Server, revision: str
) -> None:
    # By the functions that all releases have: pyapi is of the newest.
    load, manifest = "select fleet.load_registry(%s)", Jsonb(schema.default_manifest())
    create = "select workspace_id from workspace.create_workspace('w', 'claude-code', 'opus')"
    switch = "select model from workspace.change_runtime(%s, %s)"
    read = "select runtime, model, provider, billed_to, version from workspace.get_workspace(%s)"

    def derived(conn: Conn) -> list[Any]:
        return sorted(conn.execute(DERIVED).fetchall())

    schema.migrate(database.dsn, revision)
    with databases.create(server) as fresh, fresh.connect() as conn:
        schema.migrate(fresh.dsn)
        conn.execute(load, [manifest])
        newest = derived(conn)
    with database.connect(autocommit=True) as conn:
        conn.execute(load, [manifest])
        older, ws = derived(conn), one(conn, create)
        models = [one(conn, switch, ws, runtime) for runtime in ("google-adk", "hermes", "codex")]
        before = conn.execute(read, [ws]).fetchone()

        schema.migrate(database.dsn)
        assert derived(conn) == newest
        assert conn.execute(read, [ws]).fetchone() == before
        assert one(conn, switch, ws, "google-adk") == models[0]

        schema.downgrade(database.dsn, revision)
        assert derived(conn) == older
        assert one(conn, switch, ws, "codex") == models[2]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_newest_revision_waits_for_a_caller_that_then_does_more(
    database: Database, direction: str
) -> None:
    before = REVISIONS[-2]
    schema.migrate(database.dsn, before if direction == "up" else "head")
    with (
        database.connect() as conn,
        database.connect(autocommit=True) as observer,
    ):
        conn.execute("select fleet.load_registry(%s)", [Jsonb(schema.default_manifest())])
        create = "select workspace_id from workspace.create_workspace('w', 'claude-code')"
        ws = one(conn, create)
        conn.commit()
        conn.execute("select workspace.clear_model(%s, request_id => 'x')", [ws])
        if direction == "up":
            running = in_thread(schema.migrate, database.dsn)
        else:
            running = in_thread(schema.downgrade, database.dsn, before)
        wait_for(lambda: bool(blocked(observer, database)))
        # It reads what it has not read yet: the migration must not hold that, and wait for us.
        conn.execute("select workspace.set_model(%s, 'opus')", [ws])
        conn.commit()
        assert running.result(60) == [REVISIONS[-1]]


def test_what_psql_installed_can_be_removed(database: Database) -> None:
    empty = dump(database)
    installed_by_psql(database)
    schema.downgrade(database.dsn)
    assert dump(database) == empty


def test_nothing_of_ours_stays_in_any_catalogue(database: Database) -> None:
    schema.migrate(database.dsn)
    schema.downgrade(database.dsn)
    with database.connect() as conn:
        for catalogue in ("pg_namespace", "pg_class", "pg_proc", "pg_type", "pg_default_acl"):
            query = f"select count(*) from {catalogue} where oid >= 16384"
            assert one(conn, query) == 0, catalogue


def test_removing_is_refused_while_there_are_workspaces(database: Database) -> None:
    schema.migrate(database.dsn)
    with database.connect() as conn:
        load_registry(conn, schema.default_manifest())
        ws = create_workspace(conn, "w", "claude-code", model="opus").workspace_id
    before = dump(database)
    with pytest.raises(WorkspacesExist) as caught:
        schema.downgrade(database.dsn)
    assert (caught.value.status, caught.value.workspaces) == (409, 1)
    with pytest.raises(AssertionError, match="There are workspaces"):
        alembic(database, "downgrade", "base")
    assert dump(database) == before
    with database.connect() as conn:
        assert change_runtime(conn, ws, "google-adk").version == 2

    schema.downgrade(database.dsn, discard_workspaces=True)
    assert schema.current_revision(database.dsn) is None


def test_removing_spares_what_is_not_ours(database: Database) -> None:
    schema.migrate(database.dsn)
    before = dump(database)
    with database.connect(autocommit=True) as conn:
        for theirs in (
            "create view public.v as select * from registry.list_runtimes()",
            "create table workspace.notes (note text)",
            "create table registry.notes (note text)",
        ):
            conn.execute(theirs.encode())
            with pytest.raises(DependentObjects):
                schema.downgrade(database.dsn)
            kind, name = theirs.split()[1:3]
            conn.execute(f"drop {kind} {name}".encode())
    assert dump(database) == before


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[str]:
    """The dsn of a server of its own: roles belong to a whole server."""
    with tempfile.TemporaryDirectory(prefix="tests-", dir="/tmp") as directory:
        Path(directory).chmod(0o711)  # if we are root, the server's user has to get in
        with embedded.server(Path(directory) / "home") as server:
            yield server.dsn


def our_roles(conn: Conn) -> list[str]:
    query = "select rolname from pg_roles where rolname like 'runtime\\_registry\\_%' order by 1"
    return [name for (name,) in conn.execute(query)]


def test_roles_go_unless_something_else_in_the_cluster_needs_them(own_cluster: str) -> None:
    with psycopg.connect(own_cluster, autocommit=True) as conn:
        schema.migrate(own_cluster)
        assert our_roles(conn) == ROLES
        schema.downgrade(own_cluster)
        assert our_roles(conn) == []

        schema.migrate(own_cluster)
        conn.execute("create role app; grant runtime_registry_operator to app")
        conn.execute("create table theirs (); grant select on theirs to runtime_registry_reader")
        schema.downgrade(own_cluster)
        assert our_roles(conn) == ["runtime_registry_operator", "runtime_registry_reader"]
        conn.execute("drop table theirs; drop role app")
        schema.migrate(own_cluster)
        schema.downgrade(own_cluster)
        assert our_roles(conn) == []


def test_an_owner_without_superuser_rights_can_migrate(own_cluster: str) -> None:
    with psycopg.connect(own_cluster, autocommit=True) as conn:
        conn.execute("create role owner login createrole")
        with pytest.raises(PermissionDenied):
            schema.migrate(f"{own_cluster} user=owner")
        conn.execute("grant create on database runtime_registry to owner")
        as_owner = f"{own_cluster} user=owner"
        assert schema.migrate(as_owner) == REVISIONS
        with psycopg.connect(as_owner) as own:
            load_registry(own, schema.default_manifest())
            ws = create_workspace(own, "w", "claude-code", model="opus").workspace_id
            assert change_runtime(own, ws, "google-adk").model_was_reset
        # Nothing to do is nothing that needs a right.
        conn.execute("revoke create on database runtime_registry from owner")
        assert schema.migrate(as_owner) == []
        schema.downgrade(as_owner, discard_workspaces=True)
        assert our_roles(conn) == []
        conn.execute("drop role owner")


# Two at once, and what goes wrong


def blocked(observer: Conn, database: Database) -> list[int]:
    """The sessions in a database that wait for a lock."""
    query = """
        select pid from pg_stat_activity
        where datname = %s and cardinality(pg_blocking_pids(pid)) > 0
    """
    return [pid for (pid,) in observer.execute(query, [database.name])]


def test_of_two_migrators_the_second_waits_and_finds_nothing_to_do(database: Database) -> None:
    migrator = [
        sys.executable,
        "-c",
        "import sys; from pyapi import schema; print(schema.migrate(*sys.argv[1:]))",
    ]
    observer = database.server.connect(autocommit=True)
    with observer, database.connect() as holder:
        # Stops whoever comes to create the schema.
        holder.execute("create schema registry")
        running = []
        for waiting in (1, 2):
            process = subprocess.Popen(
                [
                    *migrator,
                    f"{database.dsn} options='-c default_transaction_isolation=serializable'",
                ],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            running.append(process)
            wait_for(lambda number=waiting: len(blocked(observer, database)) == number)  # type: ignore[misc]
        # A third does not wait for ever.
        with pytest.raises(LockTimeout) as caught:
            schema.migrate(database.dsn, lock_timeout="20ms")
        assert caught.value.safe_to_retry is True
        holder.rollback()
        outputs = [process.communicate(timeout=60)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0]
    assert outputs == [f"{REVISIONS}\n", "[]\n"]
    assert schema.current_revision(database.dsn) == schema.head_revision()


def test_two_migrators_in_one_process_take_turns(database: Database) -> None:
    running = [in_thread(schema.migrate, database.dsn) for _ in range(3)]
    assert sorted(future.result(60) for future in running) == [[], [], REVISIONS]


def test_a_lock_that_is_not_to_be_had_is_a_lock_timeout(database: Database) -> None:
    empty = dump(database)
    with database.connect() as holder:
        holder.execute("create schema registry")
        with pytest.raises(LockTimeout) as caught:
            schema.migrate(database.dsn, lock_timeout="20ms")
        assert (caught.value.status, caught.value.safe_to_retry) == (503, True)
        assert isinstance(caught.value.__cause__, psycopg.Error)
        holder.rollback()
    assert dump(database) == empty

    schema.migrate(database.dsn)
    with database.connect() as holder:
        load_registry(holder, schema.default_manifest())
        with pytest.raises(LockTimeout):
            schema.downgrade(database.dsn, lock_timeout="20ms")


def test_a_migration_that_fails_leaves_nothing(database: Database) -> None:
    with database.connect(autocommit=True) as conn:
        conn.execute("create schema fleet")  # theirs, and late in our way
    before = dump(database)
    with pytest.raises(DatabaseFailure) as caught:
        schema.migrate(database.dsn)
    assert caught.value.sqlstate == "42P06"
    assert dump(database) == before


def test_a_database_of_a_newer_release_is_left_alone(database: Database) -> None:
    schema.migrate(database.dsn)
    with database.connect(autocommit=True) as conn:
        conn.execute("update registry.alembic_version set version_num = '9999'")
    before = dump(database)
    for change in (schema.migrate, schema.downgrade):
        with pytest.raises(SchemaTooNew) as caught:
            change(database.dsn)
        assert caught.value.safe_to_retry is False
    assert schema.current_revision(database.dsn) == "9999"
    assert dump(database) == before


@pytest.mark.parametrize(
    "arguments", [{"revision": "9999"}, {"revision": ""}, {"lock_timeout": "soon"}]
)
def test_a_bad_argument_is_refused(database: Database, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        schema.migrate(database.dsn, **arguments)


def test_a_database_that_cannot_be_reached_or_written_is_a_typed_failure(
    database: Database, tmp_path: Path
) -> None:
    for call in (schema.migrate, schema.downgrade, schema.current_revision):
        with pytest.raises(ConnectionLost) as caught:
            call(f"host={tmp_path} dbname=none")
        assert caught.value.safe_to_retry is True
    with pytest.raises(ReadOnlyDatabase):
        schema.migrate(f"{database.dsn} options='-c default_transaction_read_only=on'")


# alembic's own command


def test_alembics_command_works_in_a_checkout(database: Database, installed: str) -> None:
    empty = dump(database)
    head = schema.head_revision()
    assert alembic(database, "current") == ""
    assert dump(database) == empty
    parts = {
        key: quote(str(value), safe="") for key, value in conninfo_to_dict(database.dsn).items()
    }
    query = "&".join(f"{key}={value}" for key, value in parts.items())
    alembic(database, "upgrade", "head", DATABASE_URL=f"postgresql+psycopg://?{query}")
    assert dump(database) == installed
    assert alembic(database, "current") == f"{head} (head)\n"
    with database.connect() as conn:
        load_registry(conn, schema.default_manifest())
        create_workspace(conn, "w", "hermes")
    down = ["-x", "discard_workspaces=on", "downgrade", "base"]
    alembic(database, "-x", f"database={database.dsn}", *down, DATABASE_URL="dbname=none")
    assert dump(database) == empty

    schema.migrate(database.dsn)
    with database.connect() as conn:
        load_registry(conn, schema.default_manifest())
        create_workspace(conn, "w", "hermes")
    # As the hint of the refusal says.
    alembic(database, "downgrade", "base", PGOPTIONS="-c runtime_registry.discard_workspaces=on")
    assert dump(database) == empty


def test_the_sql_of_a_migration_can_be_run_by_hand(
    database: Database, installed: str, tmp_path: Path
) -> None:
    empty = dump(database)
    for direction, target in (("upgrade", "head"), ("downgrade", f"{schema.head_revision()}:base")):
        script = tmp_path / f"{direction}.sql"
        script.write_text(alembic(database, direction, target, "--sql"), "utf-8")
        database.psql("-q", "-f", script)
        if direction == "upgrade":
            assert dump(database) == installed
    assert dump(database) == empty


def test_a_new_revision_runs_its_sql_to_the_letter(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = r"""a :name, ::text, \:x, \\:y, %, %s, %%, %(z)s, {b}, $1, E'\n', C:\new, 'q', :"v", $$"""
    folder = tmp_path / "100% odd: folder"
    shutil.copytree(ROOT / "alembic", folder)
    monkeypatch.setattr(schema, "migrations_folder", lambda: folder)

    import alembic.command
    from alembic.config import Config

    config = Config(toml_file=ROOT / "pyproject.toml")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made = alembic.command.revision(config, "odd one", rev_id="9000")
    assert made is not None
    (folder / "versions" / "9000_odd_one.up.sql").write_text(
        f"create table odd as select $odd${odd}$odd$::text as odd;\n"
        "create function odd() returns text language sql as $f$ select odd from odd -- 100%: $f$;\n"
    )
    (folder / "versions" / "9000_odd_one.down.sql").write_text("drop function odd; drop table odd;")

    assert schema.head_revision() == "9000"
    released = sorted(f.name[:4] for f in (ROOT / "alembic" / "versions").glob("*.py"))
    assert schema.migrate(database.dsn, released[-1]) == released
    before = dump(database)
    assert schema.migrate(database.dsn) == ["9000"]
    with database.connect() as conn:
        assert one(conn, "select odd()") == odd
    assert schema.downgrade(database.dsn, released[-1]) == ["9000"]
    assert dump(database) == before


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as it is released."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_the_sql_and_the_migrations_and_nothing_else(
    wheel: Path,
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{packaged}/{file.relative_to(ROOT / folder).as_posix()}"
        for packaged, folder in (
            ("pyapi", "pyapi"),
            ("pyapi/_sql", "sql"),
            ("pyapi/_alembic", "alembic"),
        )
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected


@pytest.mark.timeout(600)  # pip may have to download everything
def test_the_wheel_alone_migrates_loads_and_changes(
    wheel: Path, database: Database, tmp_path: Path
) -> None:
    place, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(place, with_pip=True)
    python, command = place / "bin" / "python", place / "bin" / "runtime-registry"
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    environment["DATABASE_URL"] = database.dsn

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            arguments, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}[cli]")
    assert run(python, "-c", "import pyapi; print(pyapi.__file__)").startswith(str(place))

    head = schema.head_revision()
    assert json.loads(run(command, "migrate", "--json")) == {"revision": head, "applied": REVISIONS}
    run(command, "load")
    created = json.loads(
        run(command, "create", "w", "--runtime", "claude-code", "--model", "opus", "--json")
    )
    ws = UUID(created["workspace_id"])
    changed = json.loads(run(command, "change", str(ws), "google-adk", "--json"))
    assert (changed["model"], changed["model_was_reset"]) == ("platform:gemini-2.5-pro", True)
    undone = json.loads(run(command, "uninstall", "--discard-workspaces", "--json"))["undone"]
    assert undone == REVISIONS[::-1]
    assert list(elsewhere.iterdir()) == []
