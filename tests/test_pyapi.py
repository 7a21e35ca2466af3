"""The Python functions: what they return, what they leave alone, and how they fail."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pydoc
import re
import socket
import subprocess
import sys
import traceback
import typing
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row

import pyapi
from databases import Database, in_thread, wait_until_blocked
from every_function import use_every_function
from pyapi import (
    Change,
    Deprecation,
    FeedEntry,
    HistoryEntry,
    ModelEntry,
    MoveEntry,
    Orphan,
    Pruning,
    RegistryError,
    RegistryLoad,
    Revision,
    RuntimeEntry,
    SecretEntry,
    Workspace,
    aio,
    change_runtime,
    changes_after,
    clear_model,
    create_workspace,
    current_cursor,
    default_model,
    delete_secret,
    delete_workspace,
    deprecations,
    get_secret,
    get_workspace,
    history,
    list_models,
    list_runtimes,
    list_secrets,
    load_registry,
    menu,
    move,
    orphans,
    preview_runtime_change,
    prune_changes,
    reset_orphans,
    resolve,
    restore_registry,
    revision_manifest,
    revisions,
    schema,
    set_model,
    set_secret,
)
from pyapi.errors import (
    ConnectionLost,
    DatabaseFailure,
    Deadlock,
    FailedTransaction,
    InvalidArgument,
    IsolationUnsupported,
    LockTimeout,
    ModelNotRegistered,
    NoDefaultModel,
    PermissionDenied,
    ReadOnlyDatabase,
    RegistryInvalid,
    RequestIdReused,
    RevisionNotFound,
    RuntimeInUse,
    RuntimeUnsupported,
    SchemaMissing,
    SecretNotFound,
    SecretUnreadable,
    SerializationFailure,
    StatementTimeout,
    VersionConflict,
    WorkspaceExists,
    WorkspaceNotFound,
)
from support import Conn, one

KIMI = "moonshot/kimi-k2.6"
GEMINI = "platform:gemini-2.5-pro"
# Those that call one of the database's functions.
FUNCTIONS = sorted(
    name
    for name in pyapi.__all__
    if inspect.isfunction(function := getattr(pyapi, name)) and hasattr(function, "__wrapped__")
)


def workspace(conn: Conn, runtime: str = "claude-code", model: str | None = KIMI) -> UUID:
    return create_workspace(conn, "w", runtime, model=model).workspace_id


# What they return


def test_a_workspace_from_creation_to_deletion(conn: Conn) -> None:
    created = create_workspace(conn, "mine", "claude-code", model=KIMI)
    ws = created.workspace_id
    assert isinstance(ws, UUID)
    assert (created.version, created.changed, created.previous_runtime) == (1, True, None)

    preview = preview_runtime_change(conn, ws, "google-adk")
    changed = change_runtime(conn, ws, "google-adk", expected_version=preview.version)
    assert changed == dataclasses.replace(preview, version=2)
    assert changed == Change(
        workspace_id=ws,
        version=2,
        changed=True,
        previous_runtime="claude-code",
        runtime="google-adk",
        previous_model=KIMI,
        model=GEMINI,
        model_source="default",
        model_was_reset=True,
        provider="platform",
        billed_to="platform",
        billing_changed=changed.billing_changed,
        needs_restart=True,
        model_deprecated=False,
        model_sunset_at=None,
    )
    assert change_runtime(conn, str(ws), "google-adk").changed is False

    now = get_workspace(conn, ws)
    assert isinstance(now, Workspace)
    assert (now.name, now.runtime, now.model, now.version) == ("mine", "google-adk", GEMINI, 2)
    assert now.model_registered is True
    assert isinstance(now.created_at, datetime)
    assert now.created_at.tzinfo is not None

    back = change_runtime(conn, ws, "claude-code", restore=True)
    assert (back.model, back.model_source) == (KIMI, "restored")
    assert change_runtime(conn, ws, "claude-code", model="opus").model_source == "requested"
    assert set_model(conn, ws, "sonnet").model == "sonnet"
    assert clear_model(conn, ws, expected_version=5).model is None
    assert get_workspace(conn, ws).model_registered is None
    deleted = delete_workspace(conn, ws, expected_version=6)
    assert (deleted.previous_runtime, deleted.runtime, deleted.version) == ("claude-code", None, 7)

    entries = history(conn, ws)
    assert all(isinstance(entry, HistoryEntry) for entry in entries)
    assert [(entry.version, entry.action) for entry in entries] == [
        (1, "create_workspace"),
        (2, "change_runtime"),
        (3, "change_runtime"),
        (4, "change_runtime"),
        (5, "set_model"),
        (6, "clear_model"),
        (7, "delete_workspace"),
    ]
    with pytest.raises(WorkspaceNotFound):
        get_workspace(conn, ws)


def test_a_workspace_has_secrets_besides_its_model(conn: Conn) -> None:
    ws = workspace(conn)
    value = " sk-\u00e9\n"
    assert set_secret(conn, ws, "API_KEY", value, expected_version=1).version == 2
    assert set_secret(conn, ws, "API_KEY", value).changed is False
    assert get_secret(conn, ws, "API_KEY") == value
    entries = list_secrets(conn, ws)
    assert [entry.name for entry in entries] == ["API_KEY", "MODEL"]
    assert all(isinstance(entry.updated_at, datetime) for entry in entries)
    deleted = delete_secret(conn, ws, "API_KEY", expected_version=2)
    assert (deleted.version, deleted.model, deleted.model_source) == (3, KIMI, "kept")
    assert delete_secret(conn, ws, "API_KEY").changed is False
    assert [(entry.action, entry.secret) for entry in history(conn, ws)] == [
        ("create_workspace", None),
        ("set_secret", "API_KEY"),
        ("delete_secret", "API_KEY"),
    ]
    with pytest.raises(SecretNotFound) as missing:
        get_secret(conn, ws, "API_KEY")
    assert (missing.value.status, missing.value.workspace_id) == (404, str(ws))
    assert missing.value.secret == "API_KEY"


@pytest.mark.parametrize(
    "call",
    [
        lambda conn, ws: set_secret(conn, ws, "MODEL", "opus"),
        lambda conn, ws: get_secret(conn, ws, "MODEL"),
        lambda conn, ws: delete_secret(conn, ws, "MODEL"),
    ],
)
def test_the_model_is_no_general_secret(conn: Conn, call: Callable[[Conn, UUID], object]) -> None:
    ws = workspace(conn)
    with pytest.raises(InvalidArgument) as caught:
        call(conn, ws)
    assert caught.value.argument == "name"
    assert "set_model" in caught.value.problem


def test_a_secret_that_cannot_be_read_is_named_and_can_be_replaced(conn: Conn) -> None:
    ws = workspace(conn)
    set_secret(conn, ws, "A", "1")
    conn.execute("update workspace.secrets set sealed = '\\xff' where key = 'A'")
    with pytest.raises(SecretUnreadable) as caught, conn.transaction():
        get_secret(conn, ws, "A")
    assert (caught.value.secret, caught.value.workspace_id) == ("A", str(ws))
    set_secret(conn, ws, "A", "2")
    assert get_secret(conn, ws, "A") == "2"


def test_the_registry_can_be_read(conn: Conn) -> None:
    runtimes = {entry.runtime: entry for entry in list_runtimes(conn)}
    hermes = runtimes["hermes"]
    assert isinstance(hermes, RuntimeEntry)
    ids = menu(conn, "hermes")
    assert hermes.models == len(ids)
    assert hermes.providers[0] == "kimi-coding"
    models = list_models(conn, "hermes")
    assert [entry.model for entry in models] == ids
    assert [entry.position for entry in models] == list(range(1, len(ids) + 1))
    assert [entry.model for entry in models if entry.is_default] == [default_model(conn, "hermes")]
    assert isinstance(models[0], ModelEntry)
    assert models[0].provider == resolve(conn, "hermes", ids[0])
    assert default_model(conn, "external") is None
    assert menu(conn, "external") == []
    assert resolve(conn, "hermes", "served by nobody") is None


def test_credentials_decide_between_providers_that_list_the_same_model(conn: Conn) -> None:
    providers = [
        {"name": "first", "billed_to": "platform", "auth_env": ["A"]},
        {"name": "second", "billed_to": "tenant", "auth_env": ["B", "C"]},
    ]
    arms = [{"provider": name, "models": ["m"]} for name in ("first", "second")]
    load_registry(
        conn,
        {"schema_version": 1, "providers": providers, "runtimes": [{"name": "r", "arms": arms}]},
    )
    assert resolve(conn, "r", "m") == "first"
    for names in (["C"], ("C",), {"C"}, iter(["C"])):
        assert resolve(conn, "r", "m", auth_env=names) == "second"
    with pytest.raises(InvalidArgument):
        resolve(conn, "r", "m", auth_env="C")


def test_loading_a_manifest_tells_what_it_does(conn: Conn) -> None:
    manifest = schema.default_manifest()
    same = load_registry(conn, manifest)
    assert isinstance(same, RegistryLoad)
    assert (same.loaded, same.added, same.removed, same.changed) == (False, [], [], [])

    manifest["runtimes"].append({"name": "new", "arms": []})
    trial = load_registry(conn, manifest, dry_run=True)
    assert (trial.loaded, trial.revision) == (False, same.revision)
    said = {"default_model": None, "model_policy": "registered"}
    assert trial.added == [{"kind": "runtime", "runtime": "new", "after": said}]
    loaded = load_registry(conn, manifest)
    assert (loaded.loaded, loaded.revision) == (True, same.revision + 1)
    assert loaded.added == trial.added
    assert "new" in {entry.runtime for entry in list_runtimes(conn)}

    first, second = reversed(revisions(conn))
    assert isinstance(first, Revision)
    assert (first.is_current, second.is_current, second.runtimes) == (False, True, 10)
    assert revision_manifest(conn) == manifest
    back = restore_registry(conn, first.revision)
    assert (back.loaded, back.revision, back.removed[0]["kind"]) == (True, 3, "runtime")
    assert revision_manifest(conn, 3) == schema.default_manifest()
    with pytest.raises(RevisionNotFound) as missing:
        restore_registry(conn, 4)
    assert (missing.value.status, missing.value.revision) == (404, 4)


def test_deprecated_models_and_who_uses_them_can_be_read(conn: Conn) -> None:
    manifest = schema.default_manifest()
    manifest["deprecations"] = [
        {"model": "opus", "deprecated_at": "2020-01-01", "sunset_at": "2120-01-01"},
    ]
    load_registry(conn, manifest)
    end = datetime(2120, 1, 1, tzinfo=UTC)
    created = create_workspace(conn, "w", "claude-code", model="opus")
    assert (created.model_deprecated, created.model_sunset_at) == (True, end)
    found = deprecations(conn)
    since = datetime(2020, 1, 1, tzinfo=UTC)
    assert found == [Deprecation(created.workspace_id, "claude-code", "opus", since, end, None)]
    (entry,) = (each for each in list_models(conn, "claude-code") if each.model == "opus")
    assert (entry.deprecated_at, entry.sunset_at, entry.successor) == (since, end, None)


@pytest.mark.parametrize(
    ("composite", "row_type"),
    [
        ("workspace.change", Change),
        ("workspace.state", Workspace),
        ("workspace.history_entry", HistoryEntry),
        ("workspace.secret_entry", SecretEntry),
        ("registry.runtime_entry", RuntimeEntry),
        ("registry.model_entry", ModelEntry),
        ("fleet.registry_load", RegistryLoad),
        ("fleet.revision", Revision),
        ("fleet.deprecation", Deprecation),
        ("fleet.orphan", Orphan),
        ("fleet.move_entry", MoveEntry),
        ("fleet.feed_entry", FeedEntry),
        ("fleet.pruning", Pruning),
    ],
)
def test_a_result_has_the_fields_of_its_sql_type(
    conn: Conn, composite: str, row_type: type[Any]
) -> None:
    columns = conn.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and not attisdropped order by attnum",
        [composite],
    ).fetchall()
    assert [name for (name,) in columns] == [field.name for field in dataclasses.fields(row_type)]


def test_results_cannot_be_altered_and_are_small(conn: Conn) -> None:
    change = create_workspace(conn, "w", "hermes")
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.version = 2  # type: ignore[misc]
    assert not hasattr(change, "__dict__")


def test_every_public_function_of_the_database_has_a_python_function_with_its_arguments(
    conn: Conn,
) -> None:
    granted = conn.execute(
        """
        select p.proname, p.proargnames[1:p.pronargs] from pg_proc p
        where p.pronamespace
            = any (array['registry', 'access', 'workspace', 'fleet']::regnamespace[])
          and has_function_privilege('runtime_registry_admin', p.oid, 'execute')
        """
    ).fetchall()
    assert sorted(name for name, _ in granted) == FUNCTIONS
    for name, arguments in granted:
        parameters = inspect.signature(getattr(pyapi, name)).parameters
        assert list(parameters) == ["conn", *(arguments or [])], name


# What they leave alone


ROW_FACTORIES: dict[str, Any] = {
    "dict": dict_row,
    "namedtuple": namedtuple_row,
    "scalar": scalar_row,
    "class": class_row(dict),
}


@pytest.mark.parametrize("row_factory", ROW_FACTORIES)
@pytest.mark.parametrize("cursor", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
def test_the_callers_row_factory_and_cursor_class_do_not_matter(
    shared_database: Database, row_factory: str, cursor: Any
) -> None:
    factory = ROW_FACTORIES[row_factory]
    with (
        psycopg.connect(shared_database.dsn, row_factory=factory, cursor_factory=cursor) as conn,
        conn.transaction(force_rollback=True),
    ):
        ws = workspace(conn)
        assert change_runtime(conn, ws, "google-adk").model == GEMINI
        assert [entry.version for entry in history(conn, ws)] == [1, 2]
        assert resolve(conn, "google-adk", GEMINI) == "platform"
        assert conn.row_factory is factory
        assert conn.cursor_factory is cursor


def test_the_callers_json_adapters_do_not_matter(conn: Conn) -> None:
    def refuse(_: object) -> typing.NoReturn:
        raise AssertionError

    psycopg.types.json.set_json_loads(refuse, conn)
    psycopg.types.json.set_json_dumps(refuse, conn)
    assert load_registry(conn, schema.default_manifest(), dry_run=True).added == []


def test_nothing_is_begun_or_committed(database: Database) -> None:
    conn = database.connect()
    ws = workspace(conn)
    assert conn.info.transaction_status == TransactionStatus.INTRANS
    conn.rollback()
    with pytest.raises(WorkspaceNotFound):
        get_workspace(conn, ws)
    conn.rollback()

    ws = workspace(conn)
    with conn.transaction(force_rollback=True):
        change_runtime(conn, ws, "google-adk")
    assert get_workspace(conn, ws).runtime == "claude-code"
    conn.commit()

    auto = database.connect(autocommit=True)
    change_runtime(auto, ws, "google-adk")
    assert auto.info.transaction_status == TransactionStatus.IDLE
    assert get_workspace(conn, ws).runtime == "google-adk"


def test_a_call_is_one_statement(database: Database, tmp_path: Path) -> None:
    conn = database.connect(autocommit=True)
    manifest = schema.default_manifest()
    ws = workspace(conn)
    calls: list[Callable[[], object]] = [
        lambda: create_workspace(conn, "w", "hermes"),
        lambda: change_runtime(conn, ws, "google-adk", request_id="r"),
        lambda: preview_runtime_change(conn, ws, "hermes"),
        lambda: set_model(conn, ws, GEMINI),
        lambda: clear_model(conn, ws),
        lambda: get_workspace(conn, ws),
        lambda: history(conn, ws),
        lambda: set_secret(conn, ws, "A", "1"),
        lambda: get_secret(conn, ws, "A"),
        lambda: list_secrets(conn, ws),
        lambda: delete_secret(conn, ws, "A"),
        lambda: pyapi.rename_workspace(conn, ws, "other"),
        lambda: delete_workspace(conn, ws),
        lambda: pyapi.list_workspaces(conn),
        lambda: pyapi.overview(conn),
        lambda: pyapi.recent_changes(conn),
        lambda: pyapi.status(conn),
        lambda: pyapi.create_token(conn, "t", "admin", b"x" * 32),
        lambda: pyapi.authenticate(conn, b"x" * 32),
        lambda: pyapi.list_tokens(conn),
        lambda: pyapi.revoke_token(conn, "t"),
        lambda: resolve(conn, "hermes", "m"),
        lambda: default_model(conn, "hermes"),
        lambda: menu(conn, "hermes"),
        lambda: list_models(conn, "hermes"),
        lambda: list_runtimes(conn),
        lambda: load_registry(conn, manifest, dry_run=True),
        lambda: restore_registry(conn, 1),
        lambda: revisions(conn),
        lambda: revision_manifest(conn),
        lambda: deprecations(conn),
        lambda: orphans(conn),
        lambda: move(conn, "hermes", "codex"),
        lambda: reset_orphans(conn),
        lambda: changes_after(conn),
        lambda: current_cursor(conn),
        lambda: prune_changes(conn, datetime.now(UTC)),
    ]
    assert len(calls) == len(FUNCTIONS)
    for number, call in enumerate(calls):
        trace = tmp_path / str(number)
        with trace.open("wb") as file:
            conn.pgconn.trace(file.fileno())
            call()
            conn.pgconn.untrace()
        # libpq's trace: F is the frontend; Query, or Execute of the extended protocol.
        assert len(re.findall(r"\tF\t\d+\t(?:Query|Execute)\t", trace.read_text())) == 1


def test_every_function_works_in_a_transaction_of_its_own(database: Database) -> None:
    for _ in range(2):  # as the clients of a pooler do, on one database
        assert sorted(use_every_function(database.connect(autocommit=True))) == FUNCTIONS


def test_nothing_is_left_behind_in_the_session(database: Database) -> None:
    conn = database.connect(autocommit=True, prepare_threshold=None)
    left = (
        "select (select string_agg(s::text, ' ') from pg_settings s where source = 'session'),"
        " (select count(*) from pg_prepared_statements),"
        " (select count(*) from pg_cursors where not statement like '%pg_cursors%'),"
        " (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),"
        " pg_my_temp_schema()"
    )
    before = conn.execute(left).fetchall()
    ws = workspace(conn)
    for _ in range(10):  # psycopg prepares what is executed more than five times
        for runtime in ("google-adk", "claude-code"):
            change_runtime(conn, ws, runtime)
        get_workspace(conn, ws)
    assert conn.execute(left).fetchall() == before


def test_calls_alternating_between_servers_sessions_agree(database: Database) -> None:
    # As behind a transaction pooler: each call may run in another session.
    sessions = [database.connect(autocommit=True, prepare_threshold=None) for _ in range(3)]
    ws = workspace(sessions[0])
    for number in range(12):
        runtime = ("google-adk", "claude-code")[number % 2]
        assert change_runtime(sessions[number % 3], ws, runtime).version == number + 2


def test_pipelines_work(database: Database) -> None:
    conn = database.connect(autocommit=True)
    with conn.pipeline():
        ws = workspace(conn)
        assert change_runtime(conn, ws, "google-adk").model == GEMINI
        assert get_workspace(conn, ws).version == 2
    with pytest.raises(ModelNotRegistered), conn.pipeline():
        set_model(conn, ws, "opus")
    assert get_workspace(conn, ws).version == 2


# How they are described


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_and_its_async_twin_describe_themselves_alike(name: str) -> None:
    plain, twin = getattr(pyapi, name), getattr(aio, name)
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(plain)
    assert twin.__doc__ == plain.__doc__
    for function, connection, module in (
        (plain, psycopg.Connection[Any], plain.__module__),
        (twin, psycopg.AsyncConnection[Any], "pyapi.aio"),
    ):
        assert function.__name__ == function.__qualname__ == name
        assert function.__module__ == module
        assert getattr(sys.modules[module], name) is function
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function)
        assert signature.parameters["conn"].annotation == hints["conn"] == connection
        assert signature.return_annotation == hints["return"]
        assert set(hints) == {*signature.parameters, "return"}
        text = pydoc.plain(pydoc.render_doc(function))
        assert f"{name}(conn: " in text
        assert "Call[" not in text
    first, second = inspect.signature(plain), inspect.signature(twin)
    assert list(first.parameters.values())[1:] == list(second.parameters.values())[1:]
    assert first.return_annotation == second.return_annotation


def test_type_checkers_see_whole_signatures(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import pyapi, pyapi.aio\n"
        "reveal_type(pyapi.change_runtime)\n"
        "reveal_type(pyapi.aio.change_runtime)\n"
        "reveal_type(pyapi.list_models)\n"
        "reveal_type(pyapi.aio.resolve)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(snippet)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout.replace("builtins.", ""))
    arguments = (
        "ws: uuid.UUID | str, runtime: str, *, model: str | None =, restore: bool =, "
        "expected_version: int | None =, request_id: str | None ="
    )
    assert [re.sub(r" = ?\.\.\.", " =", text) for text in revealed] == [
        f"def (psycopg.connection.Connection[Any], {arguments}) -> pyapi.workspace.Change",
        f"def (psycopg.connection_async.AsyncConnection[Any], {arguments})"
        " -> typing.Coroutine[Any, Any, pyapi.workspace.Change]",
        "def (psycopg.connection.Connection[Any], runtime: str) -> list[pyapi.registry.ModelEntry]",
        "def (psycopg.connection_async.AsyncConnection[Any], runtime: str, model: str, *, "
        "auth_env: typing.Iterable[str] =) -> typing.Coroutine[Any, Any, str | None]",
    ]


# How they fail


def test_refusals_are_typed_and_carry_what_a_caller_needs(conn: Conn) -> None:
    ws = workspace(conn)
    change_runtime(conn, ws, "hermes", request_id="used")
    unknown = uuid4()

    def refused(kind: type[RegistryError], call: Callable[[], object]) -> Any:
        with pytest.raises(kind) as caught, conn.transaction():
            call()
        assert type(caught.value) is kind
        assert isinstance(caught.value.__cause__, psycopg.Error)
        return caught.value

    model = refused(ModelNotRegistered, lambda: set_model(conn, ws, "no such model"))
    assert (model.status, model.runtime, model.model) == (422, "hermes", "no such model")
    assert model.valid_models == menu(conn, "hermes")[:50]
    assert model.valid_models_total == len(menu(conn, "hermes"))
    assert "no such model" not in str(model) + repr(model)
    chosen = refused(
        ModelNotRegistered, lambda: change_runtime(conn, ws, "google-adk", model="opus")
    )
    assert (chosen.runtime, chosen.model) == ("google-adk", "opus")
    orphan = refused(NoDefaultModel, lambda: change_runtime(conn, ws, "external"))
    assert (orphan.runtime, orphan.valid_models, orphan.valid_models_total) == ("external", [], 0)
    runtime = refused(RuntimeUnsupported, lambda: change_runtime(conn, ws, "Hermes"))
    assert runtime.runtime == "Hermes"
    assert "hermes" in runtime.valid_runtimes
    version = refused(VersionConflict, lambda: clear_model(conn, ws, expected_version=1))
    assert (version.expected_version, version.version) == (1, 2)
    assert version.workspace_id == str(ws)
    missing = refused(WorkspaceNotFound, lambda: get_workspace(conn, unknown))
    assert (missing.status, missing.workspace_id) == (404, str(unknown))
    refused(WorkspaceExists, lambda: create_workspace(conn, "w", "hermes", id=ws))
    refused(RequestIdReused, lambda: set_model(conn, ws, KIMI, request_id="used"))
    problems = refused(RegistryInvalid, lambda: load_registry(conn, {"schema_version": 7})).problems
    assert {"path", "problem"} == set(problems[0])
    manifest = schema.default_manifest()
    manifest["runtimes"] = [r for r in manifest["runtimes"] if r["name"] != "hermes"]
    in_use = refused(RuntimeInUse, lambda: load_registry(conn, manifest))
    assert {"runtime": "hermes", "workspaces": 1} in in_use.runtimes
    word = refused(InvalidArgument, lambda: load_registry(conn, manifest, on_orphan="all"))  # type: ignore[arg-type]
    assert word.argument == "on_orphan"


BAD: list[tuple[str, str, Callable[[Conn, UUID], object]]] = [
    ("ws", "is not a UUID", lambda conn, ws: get_workspace(conn, "no uuid")),
    ("ws", "is not a UUID", lambda conn, ws: change_runtime(conn, "", "hermes")),
    ("id", "is not a UUID", lambda conn, ws: create_workspace(conn, "w", "hermes", id="x")),
    ("name", "has a control character", lambda conn, ws: create_workspace(conn, "a\0", "hermes")),
    ("runtime", "has a control character", lambda conn, ws: change_runtime(conn, ws, "a\0")),
    ("model", "is not valid Unicode", lambda conn, ws: set_model(conn, ws, "\ud800")),
    ("model", "is not valid Unicode", lambda conn, ws: resolve(conn, "hermes", "\udfff")),
    (
        "request_id",
        "has a control character",
        lambda conn, ws: clear_model(conn, ws, request_id="\0"),
    ),
    ("model", "is blank", lambda conn, ws: set_model(conn, ws, " \u2003 ")),
    ("model", "is longer than 255 bytes", lambda conn, ws: set_model(conn, ws, "m" * 10_000_000)),
    ("manifest", "cannot be written as JSON", lambda conn, ws: load_registry(conn, {"a": {1}})),
    (
        "manifest",
        "cannot be written as JSON",
        lambda conn, ws: load_registry(conn, {"a": float("nan")}),
    ),
]


@pytest.mark.parametrize(("argument", "problem", "call"), BAD)
def test_a_bad_argument_is_named(
    conn: Conn, argument: str, problem: str, call: Callable[[Conn, UUID], object]
) -> None:
    ws = workspace(conn)
    with pytest.raises(InvalidArgument) as caught, conn.transaction():
        call(conn, ws)
    error = caught.value
    assert (error.status, error.argument, error.problem) == (400, argument, problem)
    assert str(error) == f"The argument {argument} {problem}."
    assert get_workspace(conn, ws).version == 1


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (clear_model, {"expected_version": 2**63}),
        (clear_model, {"expected_version": True}),
        (clear_model, {"expected_version": "one"}),
        (change_runtime, {"runtime": "hermes", "restore": "perhaps"}),
        (change_runtime, {"runtime": "hermes", "restore": None}),
        (get_workspace, {"ws": 7}),
        (get_workspace, {"ws": {"an": "object"}}),
        (get_workspace, {"ws": None}),
        (set_model, {"model": object()}),
        (resolve, {"runtime": "hermes", "model": "m", "auth_env": ["\0"]}),
        (load_registry, {"manifest": {"a": "\0"}}),
        (load_registry, {"manifest": {"a": "\ud800"}}),
    ],
)
def test_an_argument_of_the_wrong_type_is_invalid(
    conn: Conn, function: Any, arguments: dict[str, Any]
) -> None:
    ws = workspace(conn)
    if "ws" in inspect.signature(function).parameters:
        arguments = {"ws": ws, **arguments}
    with pytest.raises(InvalidArgument), conn.transaction():
        function(conn, **arguments)
    assert get_workspace(conn, ws).version == 1


def test_text_outside_the_connections_encoding_is_an_invalid_argument(database: Database) -> None:
    conn = database.connect(client_encoding="latin1", autocommit=True)
    ws = create_workspace(conn, "Zoë", "hermes").workspace_id
    assert get_workspace(conn, ws).name == "Zoë"
    with pytest.raises(InvalidArgument):
        create_workspace(conn, "漢", "hermes")


def test_tracebacks_have_one_frame_of_ours_and_show_the_hint(conn: Conn) -> None:
    with pytest.raises(WorkspaceNotFound) as caught:
        get_workspace(conn, uuid4())
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [Path(frame.filename).name for frame in frames] == ["test_pyapi.py", "calls.py"]
    shown = traceback.format_exception_only(caught.value)
    assert shown[0] == f"pyapi.errors.WorkspaceNotFound: {caught.value.message}\n"
    assert shown[1] == f"{caught.value.hint}\n"


def test_after_a_refusal_the_transaction_has_to_be_rolled_back(conn: Conn) -> None:
    with pytest.raises(WorkspaceNotFound):
        get_workspace(conn, uuid4())
    with pytest.raises(FailedTransaction) as caught:
        list_runtimes(conn)
    assert caught.value.safe_to_retry is False
    conn.rollback()
    assert list_runtimes(conn)


def test_a_database_without_the_schema_says_what_to_do(
    empty_database: Callable[[], Database],
) -> None:
    conn = empty_database().connect(autocommit=True)
    calls: list[Callable[[], object]] = [
        lambda: get_workspace(conn, uuid4()),
        lambda: list_runtimes(conn),
        lambda: load_registry(conn, {}),
    ]
    for call in calls:
        with pytest.raises(SchemaMissing) as caught:
            call()
        assert caught.value.safe_to_retry is False
        assert "runtime-registry migrate" in str(caught.value.hint)


def test_missing_rights_are_a_403(database: Database) -> None:
    admin = database.connect(autocommit=True)
    role = f"nobody_{uuid4().hex}"
    admin.execute(psycopg.sql.SQL("create role {}").format(psycopg.sql.Identifier(role)))
    try:
        conn = database.connect_as(role, autocommit=True)
        with pytest.raises(PermissionDenied) as caught:
            list_runtimes(conn)
        assert (caught.value.status, caught.value.safe_to_retry) == (403, False)
    finally:
        admin.execute(psycopg.sql.SQL("drop role {}").format(psycopg.sql.Identifier(role)))


def test_a_read_only_transaction_can_read_and_fails_to_write(database: Database) -> None:
    ws = workspace(database.connect(autocommit=True))
    conn = database.connect(autocommit=True)
    conn.read_only = True
    with conn.transaction():
        assert get_workspace(conn, ws).version == 1
        assert preview_runtime_change(conn, ws, "google-adk").model == GEMINI
    with pytest.raises(ReadOnlyDatabase) as caught, conn.transaction():
        change_runtime(conn, ws, "google-adk")
    assert (caught.value.status, caught.value.safe_to_retry) == (503, False)


def test_a_registry_is_only_loaded_at_read_committed(database: Database) -> None:
    conn = database.connect()
    conn.isolation_level = IsolationLevel.SERIALIZABLE
    with pytest.raises(IsolationUnsupported) as caught:
        load_registry(conn, schema.default_manifest())
    assert caught.value.isolation == "serializable"


def test_waiting_too_long_is_a_timeout_that_may_be_tried_again(database: Database) -> None:
    holder, waiter = database.connect(), database.connect(autocommit=True)
    ws = workspace(holder)
    holder.commit()
    change_runtime(holder, ws, "google-adk")

    waiter.execute("set lock_timeout = '20ms'")
    with pytest.raises(LockTimeout) as lock:
        change_runtime(waiter, ws, "hermes")
    waiter.execute("set lock_timeout = 0")
    waiter.execute("set statement_timeout = '20ms'")
    with pytest.raises(StatementTimeout) as statement:
        change_runtime(waiter, ws, "hermes")
    for failure in (lock.value, statement.value):
        assert (failure.status, failure.safe_to_retry) == (503, True)
    holder.commit()
    assert get_workspace(waiter, ws).runtime == "google-adk"


def test_the_loser_of_a_deadlock_may_try_again(database: Database) -> None:
    first, second = database.connect(), database.connect()
    one_ws, other_ws = workspace(first), workspace(first)
    first.commit()
    second.execute("set deadlock_timeout = '10ms'")
    first.execute("set deadlock_timeout = '1h'")  # so that it is the second that loses
    change_runtime(first, one_ws, "google-adk")
    change_runtime(second, other_ws, "google-adk")
    waiting = in_thread(change_runtime, first, other_ws, "hermes")
    wait_until_blocked(database.connect(autocommit=True), first.info.backend_pid)
    with pytest.raises(Deadlock) as caught:
        change_runtime(second, one_ws, "hermes")
    assert (caught.value.status, caught.value.safe_to_retry) == (503, True)
    second.rollback()
    assert waiting.result(10).runtime == "hermes"


def test_a_stale_snapshot_is_a_serialization_failure(database: Database) -> None:
    first, second = database.connect(), database.connect()
    ws = workspace(first)
    first.commit()
    second.isolation_level = IsolationLevel.REPEATABLE_READ
    get_workspace(second, ws)
    change_runtime(first, ws, "google-adk")
    first.commit()
    with pytest.raises(SerializationFailure) as caught:
        change_runtime(second, ws, "hermes")
    assert (caught.value.status, caught.value.safe_to_retry) == (503, True)


# Whether a lost call may be repeated


Lose = Callable[[Conn, Conn], None]


def terminate(conn: Conn, observer: Conn) -> None:
    """The server ends the session, and says so."""
    assert one(observer, "select pg_terminate_backend(%s)", conn.info.backend_pid)


def cut(conn: Conn, observer: Conn) -> None:
    """The network ends: no word from the server."""
    with socket.socket(fileno=socket.dup(conn.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def plain(conn: Conn, ws: UUID) -> object:
    return change_runtime(conn, ws, "hermes")


def with_request_id(conn: Conn, ws: UUID) -> object:
    return change_runtime(conn, ws, "hermes", request_id="r")


def in_a_block(conn: Conn, ws: UUID) -> object:
    with conn.transaction():
        return change_runtime(conn, ws, "hermes")


def after_another_statement(conn: Conn, ws: UUID) -> object:
    conn.execute("select")
    return change_runtime(conn, ws, "hermes")


def lose_while_waiting(
    database: Database, call: Callable[[Conn, UUID], object], autocommit: bool, lose: Lose
) -> tuple[UUID, Conn, DatabaseFailure]:
    """Lose the connection of a call that waits for a lock, which is held until the end."""
    holder, observer = database.connect(), database.connect(autocommit=True)
    lost = database.connect(autocommit=autocommit)
    ws = workspace(observer)
    change_runtime(holder, ws, "google-adk")
    waiting: Future[object] = in_thread(call, lost, ws)
    wait_until_blocked(observer, lost.info.backend_pid)
    lose(lost, observer)
    with pytest.raises(ConnectionLost) as caught:
        waiting.result(10)
    assert caught.value.status == 503
    assert lost.closed
    return ws, holder, caught.value


@pytest.mark.parametrize("lose", [terminate, cut])
@pytest.mark.parametrize(
    ("call", "autocommit", "safe"),
    [
        (plain, True, False),
        (with_request_id, True, True),
        (in_a_block, True, True),
        (plain, False, True),
        (after_another_statement, False, True),
    ],
)
def test_a_lost_call_may_be_repeated_unless_it_may_have_been_committed(
    database: Database,
    lose: Lose,
    call: Callable[[Conn, UUID], object],
    autocommit: bool,
    safe: bool,
) -> None:
    _, _, failure = lose_while_waiting(database, call, autocommit, lose)
    assert failure.safe_to_retry is safe
    assert failure.sqlstate == ("57P01" if lose is terminate else None)


@pytest.mark.parametrize("call", [get_workspace, history])
def test_a_lost_read_may_be_repeated(
    database: Database, call: Callable[[Conn, UUID], object]
) -> None:
    conn = database.connect(autocommit=True)
    ws = workspace(conn)
    cut(conn, conn)
    with pytest.raises(ConnectionLost) as caught:
        call(conn, ws)
    assert caught.value.safe_to_retry is True


def test_a_connection_that_only_psycopg_has_found_hung_up_is_lost(database: Database) -> None:
    conn = database.connect(autocommit=True)
    ws = workspace(conn)
    with socket.socket() as unconnected:  # for poll() it has hung up, and nothing can be read
        os.dup2(unconnected.fileno(), conn.fileno())
    for safe in (False, True):  # what was sent first may have arrived; after that nothing could be
        with pytest.raises(ConnectionLost) as caught:
            change_runtime(conn, ws, "hermes")
        assert caught.value.safe_to_retry is safe
        assert not conn.closed


def test_a_call_on_a_closed_connection_may_be_repeated_on_another(database: Database) -> None:
    conn = database.connect(autocommit=True)
    ws = workspace(conn)
    conn.close()
    with pytest.raises(ConnectionLost) as caught:
        change_runtime(conn, ws, "hermes")
    assert caught.value.safe_to_retry is True


def test_a_lost_answer_is_settled_by_repeating_the_request(database: Database) -> None:
    ws, holder, _ = lose_while_waiting(database, with_request_id, True, cut)
    # The server does not know yet that nobody listens: it will go on, and commit.
    retry = database.connect(autocommit=True)
    observer = database.connect(autocommit=True)
    waiting = in_thread(change_runtime, retry, ws, "hermes", request_id="r")
    wait_until_blocked(observer, retry.info.backend_pid)
    holder.rollback()
    answer = waiting.result(10)
    assert (answer.version, answer.runtime) == (2, "hermes")
    # Whoever wrote it, it was written once: deleting waits for both.
    delete_workspace(retry, ws, expected_version=2)
    assert [entry.request_id for entry in history(retry, ws)] == [None, "r", None]
