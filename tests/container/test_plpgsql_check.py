"""plpgsql_check, a linter that plans every statement of a function, finds nothing in ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from databases import Database
from support import SCHEMAS, Conn

# Not its performance warnings: they are about casts as cheap as that of the 0 in `n bigint := 0`.
WARNINGS = ("other", "extra", "security", "compatibility")
# It takes the '{}' in `ids uuid[] := '{}'` for a text, in declarations only.
INITIAL_TEXT = """
    c.context like 'during statement block local variable %% initialization on line %%'
    and c.message = 'target type is different type than source type'
    and c.detail like 'cast "text" value to %%'
"""


@pytest.fixture
def linted(database: Database) -> Iterator[Conn]:
    with database.connect() as conn:
        conn.execute("create extension plpgsql_check")
        yield conn


def findings(conn: Conn, schemas: list[str]) -> list[str]:
    """What it says about the functions of these schemas, errors and warnings alike."""
    options = ", ".join(f"{kind}_warnings => true" for kind in WARNINGS)
    return [
        f"{function}, line {line}: {level}: {message}"
        for function, line, level, message in conn.execute(
            "select p.oid::regprocedure, c.lineno, c.level,"
            " concat_ws('; ', c.message, c.detail, c.hint)"
            " from pg_proc as p join pg_language as l on l.oid = p.prolang,"
            f" plpgsql_check_function_tb(p.oid, fatal_errors => false, {options}) as c"
            " where l.lanname = 'plpgsql' and p.pronamespace = any(%s::regnamespace[])"
            f" and ({INITIAL_TEXT}) is not true"
            " order by 1, 2",
            [schemas],
        )
    ]


def test_it_finds_nothing_in_our_functions(linted: Conn) -> None:
    found = findings(linted, SCHEMAS)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("perform 1 from public.nowhere;", 'error: relation "public.nowhere" does not exist'),
        ("execute 'select ' || name;", "security: text type variable is not sanitized"),
        ("unused := 1;", "warning extra: never read variable"),
    ],
)
def test_it_would_find_faults_of_each_kind(linted: Conn, body: str, found: str) -> None:
    linted.execute(
        "create function public.faulty(name text) returns void language plpgsql as"
        f" $$ declare unused integer; begin {body} end $$"
    )
    assert any(found in finding for finding in findings(linted, ["public"]))
