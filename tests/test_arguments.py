"""Bad input: every argument that takes text, and everything that should not be in one.

The designed code comes each time, what was sent is not repeated, and nothing is written.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from itertools import cycle
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support import (
    MANIFEST,
    SCHEMAS,
    Conn,
    Json,
    call,
    create,
    load,
    manifest,
    nothing_written,
    one,
    provider,
    refused,
    rows,
    runtime,
    savepoint,
)

WS = object()  # stands for the workspace of the test, which is on claude-code with sonnet
FUNCTIONS: dict[str, Json] = {
    "registry.resolve": {"runtime": "claude-code", "model": "opus"},
    "registry.default_model": {"runtime": "claude-code"},
    "registry.menu": {"runtime": "claude-code"},
    "registry.list_models": {"runtime": "claude-code"},
    "workspace.create_workspace": {
        "name": "w",
        "runtime": "claude-code",
        "model": "opus",
        "request_id": "r",
    },
    "workspace.rename_workspace": {
        "ws": WS,
        "name": "w",
        "runtime": "claude-code",
        "model": "opus",
        "restore": False,
        "request_id": "r",
    },
    "workspace.change_runtime": {
        "ws": WS,
        "runtime": "hermes",
        "model": "zai/x",
        "restore": False,
        "request_id": "r",
    },
    "workspace.preview_runtime_change": {
        "ws": WS,
        "runtime": "hermes",
        "model": "zai/x",
        "restore": False,
    },
    "workspace.set_model": {"ws": WS, "model": "opus", "request_id": "r"},
    "workspace.clear_model": {"ws": WS, "request_id": "r"},
    "workspace.delete_workspace": {"ws": WS},
    "workspace.get_workspace": {"ws": WS},
    "workspace.history": {"ws": WS},
    "workspace.set_secret": {"ws": WS, "name": "TOKEN", "value": "t"},
    "workspace.get_secret": {"ws": WS, "name": "TOKEN"},
    "workspace.delete_secret": {"ws": WS, "name": "TOKEN"},
    "workspace.list_secrets": {"ws": WS},
    "fleet.orphans": {"runtime": "claude-code"},
    "fleet.reset_orphans": {"runtime": "claude-code", "request_id": "r"},
    "fleet.move": {
        "from_runtime": "claude-code",
        "to_runtime": "hermes",
        "restore": False,
        "request_id": "r",
    },
    "access.create_token": {"name": "t", "role": "admin", "hash": b"x" * 32},
    "access.revoke_token": {"name": "t"},
}
TEXTS = [
    (function, argument)
    for function, named in FUNCTIONS.items()
    for argument in named
    if argument not in ("ws", "restore", "value", "role", "hash")
]
OPTIONAL = {
    ("workspace.create_workspace", "model"),
    ("workspace.rename_workspace", "runtime"),
    ("workspace.rename_workspace", "model"),
    ("workspace.change_runtime", "model"),
    ("workspace.preview_runtime_change", "model"),
    ("fleet.orphans", "runtime"),
    ("fleet.reset_orphans", "runtime"),
    *((function, argument) for function, argument in TEXTS if argument == "request_id"),
}

# Unicode's property White_Space.
SPACES = [
    *"\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000",
    *map(chr, range(0x2000, 0x200B)),
]
CONTROLS = [*map(chr, range(1, 32)), *map(chr, range(127, 160)), "\u2028", "\u2029"]
BLANK = ["", *SPACES, "".join(SPACES), " " * 1000]
CONTROLLED = [
    *(f"op{control}us" for control in CONTROLS),
    *(f"{control}opus" for control in CONTROLS if control not in SPACES),
    *(f"opus{control}" for control in CONTROLS if control not in SPACES),
    "claude\r\nLOG: forged",
]
TEN_MEGABYTES = 10_000_000
LONG = [
    "x" * 256,
    "é" * 128,
    "€" * 85 + "x",
    "😀" * 64,
    "x" + " " * 5000 + "x",
    "x" * TEN_MEGABYTES,
    " " * TEN_MEGABYTES,
    "\u3000" * (TEN_MEGABYTES // 3),
    "\x01" * TEN_MEGABYTES,
]
BAD = {
    "is blank": BLANK,
    "has a control character": CONTROLLED,
    "is longer than 255 bytes": LONG,
}
HOSTILE = [
    "'; drop table workspace.workspaces; --",
    "' or '1'='1",
    '"; drop schema registry cascade; --',
    "$$; select pg_terminate_backend(pg_backend_pid()); $$",
    "\\'; --",
    "%s %I %L {0} ${x} :x",
    "(select 1)",
    "null",
    '{"code": "forged"}',
]


@pytest.fixture
def ws(conn: Conn) -> UUID:
    """A workspace on claude-code with sonnet."""
    return create(conn, "claude-code", "sonnet")


def given(function: str, ws: UUID, /, **other: Any) -> Json:
    """Good arguments for a function, some of them replaced."""
    named = {**FUNCTIONS[function], **other}
    return {name: ws if value is WS else value for name, value in named.items()}


def test_the_table_has_every_text_argument_there_is(conn: Conn) -> None:
    found = conn.execute(
        "select p.oid::regproc::text, a.name"
        " from pg_proc p, unnest(p.proargnames, p.proargtypes::oid[]) as a (name, type)"
        " where p.pronamespace::regnamespace::text = any(%s) and p.prosecdef"
        " and a.type = 'text'::regtype",
        [SCHEMAS],
    ).fetchall()
    assert set(found) == {
        *TEXTS,
        ("fleet.load_registry", "on_orphan"),
        ("fleet.restore_registry", "on_orphan"),
        ("workspace.set_secret", "value"),  # kept as it is
        ("access.create_token", "role"),
        ("fleet.changes_after", "cursor"),  # not a name, and made by the database
        ("fleet.prune_changes", "cursor"),
    }


@pytest.mark.parametrize("problem", BAD)
@pytest.mark.parametrize(("function", "argument"), TEXTS)
def test_bad_text_is_refused(
    conn: Conn, ws: UUID, function: str, argument: str, problem: str
) -> None:
    with nothing_written(conn):
        for value in BAD[problem]:
            refusal = refused(conn, function, **given(function, ws, **{argument: value}))
            assert refusal.sqlstate == "PT400"
            said = {
                "code": "INVALID_ARGUMENT",
                "argument": argument,
                "problem": refusal.detail["problem"],
            }
            assert refusal.detail == said
            too_long = len(value.encode()) > 4096  # that is seen before anything else
            assert said["problem"] == ("is longer than 255 bytes" if too_long else problem)
            assert len(refusal.text) < 1500


@pytest.mark.parametrize("function", FUNCTIONS)
def test_null_is_refused_where_a_value_is_needed(conn: Conn, ws: UUID, function: str) -> None:
    for argument in FUNCTIONS[function]:
        if (function, argument) in OPTIONAL:
            continue
        with nothing_written(conn):
            refusal = refused(conn, function, **given(function, ws, **{argument: None}))
        assert refusal.detail == {
            "code": "INVALID_ARGUMENT",
            "argument": argument,
            "problem": "is null",
        }
        assert refusal.sqlstate == "PT400"


@pytest.mark.parametrize(("function", "argument"), sorted(OPTIONAL))
def test_null_is_as_good_as_nothing_where_it_is_the_default(
    conn: Conn, ws: UUID, function: str, argument: str
) -> None:
    named = given(function, ws, **{argument: None})
    answers = []
    for arguments in (named, {name: value for name, value in named.items() if name != argument}):
        with savepoint(conn):
            # All but the id, which may be made anew.
            answers.append([row[1:] for row in rows(conn, function, **arguments)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_white_space_around_text_is_dropped(conn: Conn, ws: UUID, space: str) -> None:
    def padded(text: str) -> str:
        return space + text + space * 2

    answer = call(
        conn,
        "workspace.change_runtime",
        ws,
        padded("hermes"),
        padded("zai/x"),
        request_id=padded("r"),
    )
    assert (answer.runtime, answer.model) == ("hermes", "zai/x")
    assert rows(conn, "workspace.history", ws)[-1].request_id == "r"
    assert call(conn, "registry.default_model", padded("codex"))[0] == "gpt-5.5"


@pytest.mark.parametrize(
    "tail", ["x" * 249, "é" * 124 + "x", "€" * 83, "😀" * 62 + "x", "\u200b\ufeff"]
)
def test_text_of_255_bytes_is_kept_as_it_is(conn: Conn, ws: UUID, tail: str) -> None:
    longest = "claude" + tail
    assert len(longest.encode()) == 255 or len(tail) == 2
    answer = call(conn, "workspace.set_model", ws, f" {longest}\n", request_id=longest)
    assert answer.model == call(conn, "workspace.get_workspace", ws).model == longest
    assert rows(conn, "workspace.history", ws)[-1].request_id == longest
    assert (
        call(conn, "workspace.get_workspace", create(conn, "codex", name=longest)).name == longest
    )


WITH_TEXTS: dict[str, Json] = {
    **{function: FUNCTIONS[function] for function, _ in TEXTS},
    "registry.resolve": {**FUNCTIONS["registry.resolve"], "auth_env": ["ANTHROPIC_API_KEY"]},
    "workspace.create_workspace": {
        **FUNCTIONS["workspace.create_workspace"],
        "id": UUID(int=7),  # or else it is another one each time
    },
    "fleet.load_registry": {"manifest": Jsonb(MANIFEST), "on_orphan": "refuse"},
}
TEXT_TYPES: dict[type, str] = {str: "text", list: "text[]"}


def answered(conn: Conn, function: str, named: Json, *collate: str) -> list[Any]:
    """The answer, or the refusal, to arguments that are columns with these collations in turn."""
    turn = cycle(collate)
    columns = [
        f"%s::{TEXT_TYPES[type(value)]} {next(turn)} as {name}"
        if type(value) in TEXT_TYPES
        else f"%s as {name}"
        for name, value in named.items()
    ]
    arguments = ", ".join(f"{name} => given.{name}" for name in named)
    query = f"select f.* from (select {', '.join(columns)}) as given, {function}({arguments}) as f"
    try:
        with savepoint(conn):
            found = conn.execute(query.encode(), [*named.values()]).fetchall()
            return [[value for value in row if not isinstance(value, datetime)] for row in found]
    except psycopg.Error as error:
        return [error.sqlstate, error.diag.message_detail]


@pytest.mark.parametrize("function", WITH_TEXTS)
def test_the_collation_of_an_argument_makes_no_difference(
    conn: Conn, ws: UUID, function: str
) -> None:
    collations = ['"POSIX"', "ucs_basic"]
    with suppress(psycopg.errors.FeatureNotSupported), conn.transaction():  # a server without ICU
        # To this one, case and control characters are nothing.
        conn.execute(
            "create collation loose"
            " (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
        )
        collations.append("loose")
    good = {name: ws if value is WS else value for name, value in WITH_TEXTS[function].items()}
    asked = [good]
    for name, value in good.items():
        if isinstance(value, str):
            asked += [{**good, name: other} for other in (value.upper(), f"{value}\x01{value}")]
    for named in asked:
        answer = answered(conn, function, named, "")
        for collate in (
            [f"collate {name}" for name in collations],
            *([f"collate {name}"] for name in collations),
        ):
            assert answered(conn, function, named, *collate) == answer, collate


UNKNOWN_RUNTIMES = [
    "Claude-Code",
    "CODEX",
    "claude code",
    "claude-code'",
    "platform",
    "x" * 255,
    *HOSTILE,
]


@pytest.mark.parametrize("function", [name for name, argument in TEXTS if argument == "runtime"])
def test_an_unknown_runtime_is_refused_with_those_there_are(
    conn: Conn, ws: UUID, function: str
) -> None:
    known = [entry.runtime for entry in rows(conn, "registry.list_runtimes")]
    with nothing_written(conn):
        for name in UNKNOWN_RUNTIMES:
            refusal = refused(conn, function, **given(function, ws, runtime=name))
            assert refusal.sqlstate == "PT422"
            assert refusal.detail == {
                "code": "RUNTIME_UNSUPPORTED",
                "runtime": name,
                "valid_runtimes": known,
            }


UNKNOWN_MODELS = ["Opus", "SONNET", "opus'", "gpt-5.5", "x" * 255, "\u200bopus", *HOSTILE]


@pytest.mark.parametrize(
    "function", [name for name, argument in TEXTS if argument == "model" and "workspace." in name]
)
def test_an_unregistered_model_is_refused_and_not_repeated(
    conn: Conn, ws: UUID, function: str
) -> None:
    with nothing_written(conn):
        for model in UNKNOWN_MODELS:
            named = given(function, ws, model=model)
            refusal = refused(conn, function, **named)
            assert (refusal.sqlstate, refusal.code) == ("PT422", "MODEL_NOT_REGISTERED")
            assert model not in refusal.text
            menu = [row[0] for row in rows(conn, "registry.menu", refusal.detail["runtime"])]
            assert refusal.detail["valid_models"] == menu


MALFORMED = ["", "1", "not-a-uuid", "' or 1=1; --", "0" * 33, "é" * 36]


@pytest.mark.parametrize(
    ("function", "argument"),
    [(name, "ws") for name in FUNCTIONS if "ws" in FUNCTIONS[name]]
    + [("workspace.create_workspace", "id")],
)
def test_a_malformed_uuid_is_refused_by_postgres(
    conn: Conn, ws: UUID, function: str, argument: str
) -> None:
    with nothing_written(conn):
        for text in MALFORMED:
            named = given(function, ws, **{argument: text})
            assert refused(conn, function, **named).sqlstate == "22P02"


def test_quotes_and_sql_are_text_like_any_other(conn: Conn) -> None:
    load(
        conn,
        {**MANIFEST, "runtimes": [*MANIFEST["runtimes"], {"name": "any", "model_policy": "any"}]},
    )
    for text in HOSTILE:
        conn.execute("select set_config('runtime_registry.actor', %s, true)", [text])
        ws = create(conn, "any", text, name=text)
        call(conn, "workspace.set_model", ws, f"{text} 2", request_id=text)
        state = call(conn, "workspace.get_workspace", ws)
        assert (state.name, state.model) == (text, f"{text} 2")
        last = rows(conn, "workspace.history", ws)[-1]
        assert (last.actor, last.request_id, last.previous_model) == (text, text, text)
        assert call(conn, "registry.resolve", "codex", "gpt-5.5", auth_env=[text])[0]


def test_quotes_and_sql_in_a_manifest_are_text_like_any_other(conn: Conn) -> None:
    for text in HOSTILE:
        hostile = manifest(
            [provider(text, auth_env=[text], model_prefixes=[f"{text}/"], model_aliases=[text])],
            [runtime(text, (text, [f"id {text}"]), default_model=f"id {text}")],
            equivalents=[[f"id {text}"]],
        )
        assert load(conn, hostile).loaded
        assert call(conn, "registry.default_model", text)[0] == f"id {text}"
        for model in (f"id {text}", f"{text}/1", text):
            assert call(conn, "registry.resolve", text, model)[0] == text
        assert refused(conn, "registry.menu", "other").detail["valid_runtimes"] == [text]
        assert refused(conn, "workspace.create_workspace", "w", text, "other").detail[
            "valid_models"
        ] == [f"id {text}"]
    assert one(conn, "select count(*) from registry.revisions") > len(HOSTILE)


BIG = "x" * TEN_MEGABYTES
BIG_MANIFESTS: list[Any] = [
    manifest([provider(BIG)], []),
    manifest([provider("p")], [runtime("r", ("p", [BIG]))]),
    manifest([], [], **{BIG: 1}),
    BIG,
]


@pytest.mark.parametrize("number", range(len(BIG_MANIFESTS)))
def test_a_manifest_with_ten_megabytes_in_one_place_is_refused(conn: Conn, number: int) -> None:
    with nothing_written(conn):
        refusal = refused(conn, "fleet.load_registry", Jsonb(BIG_MANIFESTS[number]))
    assert (refusal.sqlstate, refusal.code) == ("PT422", "REGISTRY_INVALID")
    assert len(refusal.text) < 5000
