"""Which error becomes of what a server or psycopg reports, and that it repeats no data."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

import pyapi.errors
from pyapi.errors import (
    ConnectionLost,
    DatabaseFailure,
    Deadlock,
    FailedTransaction,
    InvalidArgument,
    ModelNotRegistered,
    OutOfResources,
    PermissionDenied,
    PreparedStatementLost,
    ReadOnlyDatabase,
    RegistryError,
    SchemaMissing,
    SerializationFailure,
    StatementTimeout,
    TooManyConnections,
    VersionConflict,
    translate,
)
from pyapi.schema import sql_folder
from support import Conn

SECRET = "a-secret-model"
RAISE = """
do $$
begin
  raise exception using errcode = {state}, message = {message}, detail = {detail}, hint = {hint};
end
$$
"""


def raised(
    conn: Conn, state: str, message: str = SECRET, detail: str = SECRET, hint: str = SECRET
) -> psycopg.Error:
    """What psycopg makes of an error of this SQLSTATE."""
    statement = psycopg.sql.SQL(RAISE).format(
        state=state, message=message, detail=detail, hint=hint
    )
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement)
    assert caught.value.sqlstate == state
    return caught.value


def says_nothing(error: RegistryError) -> bool:
    """Whether no part of an error repeats what the server said."""
    parts = [str(error), repr(error), error.args, error.__dict__]
    return not any(SECRET in str(part) for part in parts)


def kinds() -> Iterator[type[RegistryError]]:
    for kind in vars(pyapi.errors).values():
        if isinstance(kind, type) and issubclass(kind, RegistryError):
            yield kind


FAILURES: list[tuple[str, type[DatabaseFailure], int, bool | None]] = [
    # The SQLSTATE, what it becomes, the status, and whether to try again; None: if uncommitted.
    ("08000", ConnectionLost, 503, None),
    ("08006", ConnectionLost, 503, None),
    ("08P01", ConnectionLost, 503, None),
    ("25P03", ConnectionLost, 503, None),
    ("57P01", ConnectionLost, 503, None),
    ("57P02", ConnectionLost, 503, None),
    ("57P03", ConnectionLost, 503, None),
    ("40P01", Deadlock, 503, True),
    ("40001", SerializationFailure, 503, True),
    ("55P03", pyapi.errors.LockTimeout, 503, True),
    ("57014", StatementTimeout, 503, True),
    ("53300", TooManyConnections, 503, True),
    ("53100", OutOfResources, 503, False),
    ("53200", OutOfResources, 503, False),
    ("25006", ReadOnlyDatabase, 503, False),
    ("42501", PermissionDenied, 403, False),
    ("3F000", SchemaMissing, 503, False),
    ("42883", SchemaMissing, 503, False),
    ("42P01", SchemaMissing, 503, False),
    ("25P02", FailedTransaction, 500, False),
    ("2BP01", pyapi.errors.DependentObjects, 500, False),
    ("26000", PreparedStatementLost, 500, False),
    ("23505", DatabaseFailure, 500, False),
    ("22012", DatabaseFailure, 500, False),
    ("P0001", DatabaseFailure, 500, False),
    ("XX000", DatabaseFailure, 500, False),
    ("ZZ999", DatabaseFailure, 500, False),
    ("PTABC", DatabaseFailure, 500, False),
]


@pytest.mark.parametrize(("state", "kind", "status", "retry"), FAILURES, ids=lambda value: value)
def test_a_foreign_sqlstate_becomes_a_failure_that_says_whether_to_try_again(
    conn: Conn, state: str, kind: type[DatabaseFailure], status: int, retry: bool | None
) -> None:
    error = raised(conn, state)
    for harmless in (False, True):
        failure = translate(error, harmless=harmless)
        assert type(failure) is kind
        assert isinstance(failure, DatabaseFailure)
        assert failure.status == status
        assert failure.sqlstate == state
        assert failure.safe_to_retry is (harmless if retry is None else retry)
        assert re.fullmatch(r"[A-Z][^\n]+\.", str(failure))
        assert says_nothing(failure)


@pytest.mark.parametrize("state", ["22001", "22003", "22021", "22P02", "22P05", "42846", "54000"])
def test_what_does_not_fit_its_type_is_an_invalid_argument(conn: Conn, state: str) -> None:
    error = translate(raised(conn, state), params={"ws": "no uuid", "request_id": "r"})
    assert type(error) is InvalidArgument
    assert (error.status, error.code) == (400, "INVALID_ARGUMENT")
    assert (error.argument, error.problem) == ("ws", "is not a UUID")
    assert error.detail["argument"] == "ws"
    assert says_nothing(error)


def test_every_code_that_the_sql_raises_has_a_class_with_the_fields_of_its_detail() -> None:
    known = RegistryError._by_code
    found = {}
    for file in sorted(sql_folder().rglob("*.sql")):
        for raising in re.findall(r"raise exception using(.*?);\n", file.read_text(), re.DOTALL):
            if named := re.search(r"'code', '(\w+)'", raising):
                detail = raising.partition("jsonb_build_object(")[2].partition("hint =")[0]
                found[named[1]] = re.findall(r"'([a-z_]+)', ", detail)
    assert len(found) > 10
    for code, fields in found.items():
        assert code in known, code
        assert set(fields) - {"code"} <= set(known[code].fields), code


REFUSALS: list[tuple[str, str, Mapping[str, Any]]] = [
    ("PT400", "INVALID_ARGUMENT", {"argument": "name", "problem": "is blank"}),
    ("PT400", "ISOLATION_UNSUPPORTED", {"isolation": "serializable"}),
    ("PT404", "WORKSPACE_NOT_FOUND", {"workspace_id": "w"}),
    ("PT404", "SECRET_NOT_FOUND", {"workspace_id": "w", "secret": "A"}),
    ("PT404", "KEY_NOT_FOUND", {"key_id": 1}),
    ("PT409", "KEY_IN_USE", {"key_id": 1, "state": "retired", "values": 3}),
    ("PT409", "KEYRING_EXISTS", {}),
    ("PT409", "KEYRING_EMPTY", {}),
    ("PT404", "REVISION_NOT_FOUND", {"revision": 7}),
    ("PT404", "TOKEN_NOT_FOUND", {"name": "t"}),
    ("PT409", "TOKEN_EXISTS", {"name": "t"}),
    ("PT409", "VERSION_CONFLICT", {"workspace_id": "w", "expected_version": 1, "version": 2}),
    ("PT409", "RUNTIME_IN_USE", {"runtimes": [{"runtime": "r", "workspaces": 2}]}),
    ("PT409", "REGISTRY_ORPHANS", {"orphans": [], "orphans_total": 60}),
    ("PT409", "WORKSPACE_EXISTS", {"workspace_id": "w"}),
    ("PT409", "WORKSPACES_EXIST", {"workspaces": 2}),
    ("PT409", "SECRETS_SEALED", {"secrets": 2}),
    ("PT422", "DATABASE_UNSUPPORTED", {}),
    ("PT422", "RUNTIME_UNSUPPORTED", {"runtime": "r", "valid_runtimes": ["a"]}),
    (
        "PT422",
        "MODEL_NOT_REGISTERED",
        {"runtime": "r", "valid_models": [], "valid_models_total": 0},
    ),
    ("PT422", "NO_DEFAULT_MODEL", {"runtime": "r", "valid_models": [], "valid_models_total": 0}),
    ("PT422", "REGISTRY_UNAVAILABLE", {}),
    ("PT422", "REGISTRY_INVALID", {"problems": [], "problems_total": 0}),
    ("PT422", "REQUEST_ID_REUSED", {"workspace_id": "w"}),
    ("PT500", "SECRET_UNREADABLE", {"workspace_id": "w", "secret": "A"}),
    ("PT500", "ENCRYPTION_KEY_MISSING", {}),
]


@pytest.mark.parametrize(("state", "code", "fields"), REFUSALS, ids=[r[1] for r in REFUSALS])
def test_a_refusal_has_the_class_of_its_code_and_the_fields_of_its_detail(
    conn: Conn, state: str, code: str, fields: Mapping[str, Any]
) -> None:
    detail = {"code": code, **fields}
    cause = raised(conn, state, "One sentence.", json.dumps(detail), "Do this.")
    error = translate(cause, params={"model": "sent"})
    assert type(error).__name__ == code.title().replace("_", "")
    assert (error.status, error.code) == (int(state[2:]), code)
    assert (error.message, str(error), error.hint) == ("One sentence.", "One sentence.", "Do this.")
    assert not isinstance(error, DatabaseFailure)
    if isinstance(error, ModelNotRegistered):
        detail["model"] = "sent"
    assert error.detail == detail
    assert {name: getattr(error, name) for name in fields} == fields


def test_each_code_has_one_class() -> None:
    assert {code for _, code, _ in REFUSALS} == set(RegistryError._by_code)


@pytest.mark.parametrize(
    ("detail", "code"), [('{"code": "NEW_ONE"}', "NEW_ONE"), ("[1]", "UNKNOWN"), ("{", "UNKNOWN")]
)
def test_a_code_of_a_newer_release_is_a_plain_refusal_with_its_status(
    conn: Conn, detail: str, code: str
) -> None:
    error = translate(raised(conn, "PT418", "No.", detail, "Tea."))
    assert type(error) is RegistryError
    assert (error.status, error.code, str(error), error.hint) == (418, code, "No.", "Tea.")


def test_only_the_model_that_the_caller_sent_is_repeated(conn: Conn) -> None:
    detail = '{"code": "MODEL_NOT_REGISTERED", "runtime": "r"}'
    error = translate(raised(conn, "PT422", "No.", detail), params={"model": SECRET})
    assert isinstance(error, ModelNotRegistered)
    assert error.model == SECRET
    assert SECRET not in repr(error) + str(error)
    other = translate(
        raised(conn, "PT409", "No.", '{"code": "VERSION_CONFLICT"}', "Retry."),
        params={"model": SECRET},
    )
    assert type(other) is VersionConflict
    assert says_nothing(other)


@pytest.mark.parametrize(
    ("value", "problem"),
    [("a\0b", "has a control character"), ("a\ud800b", "is not valid Unicode")],
)
def test_text_that_psycopg_cannot_send_is_an_invalid_argument(
    conn: Conn, value: str, problem: str
) -> None:
    with pytest.raises((psycopg.DataError, UnicodeEncodeError)) as caught:
        conn.execute("select %s::text", [value])
    cause = caught.value
    assert isinstance(cause, (psycopg.Error, UnicodeError))
    error = translate(cause, params={"name": "x", "model": value}, lost=False)
    assert type(error) is InvalidArgument
    assert (error.argument, error.problem) == ("model", problem)


def test_without_an_sqlstate_the_class_and_the_state_of_the_connection_decide() -> None:
    broken = psycopg.OperationalError(SECRET)
    assert type(translate(broken)) is ConnectionLost
    assert type(translate(broken, lost=True)) is ConnectionLost
    assert type(translate(broken, lost=False)) is ConnectionLost
    assert type(translate(psycopg.errors.PipelineAborted(), lost=True)) is ConnectionLost
    assert type(translate(psycopg.InterfaceError(SECRET), lost=True)) is ConnectionLost
    assert type(translate(psycopg.InterfaceError(SECRET))) is DatabaseFailure
    assert type(translate(psycopg.errors.PipelineAborted(), lost=False)) is FailedTransaction
    classes: list[type[psycopg.Error]]
    classes = [psycopg.OperationalError, psycopg.ProgrammingError, psycopg.DataError]
    for kind in classes:
        assert says_nothing(translate(kind(SECRET), lost=False))


@pytest.mark.parametrize("kind", list(kinds()))
def test_errors_can_be_copied_and_pickled(kind: type[RegistryError]) -> None:
    if issubclass(kind, DatabaseFailure):
        error: RegistryError = kind.make("40001", harmless=True)
    else:
        detail = {name: [1] for name in kind.fields}
        error = kind(422, "CODE", "One sentence.", "Do this.", detail)
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert twin.__dict__ == error.__dict__
        assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)


def test_the_first_line_of_every_docstring_is_a_sentence() -> None:
    for kind in kinds():
        assert re.fullmatch(r"[A-Z].*\.", (kind.__doc__ or "").partition("\n")[0]), kind
