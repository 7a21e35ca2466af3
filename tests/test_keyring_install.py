"""Turning encryption on, and back, wherever pgcrypto is and without superuser rights."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import databases
from databases import Database
from keyrings import KEK, init, key_ids, options, reseal, retire, rotate, status
from pyapi import embedded, schema
from pyapi.errors import SecretsSealed
from servers import Server, reachable_directory
from support import MANIFEST, Conn, call, create, load, one, pair


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[str]:
    """The dsn of a server of its own, with a role that may create roles and is no superuser."""
    with reachable_directory() as directory, embedded.server(directory / "home") as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create role owner login createrole")
        yield server.dsn


PLACES = {
    "not there": ("", "pgcrypto"),
    "in public": ("create extension pgcrypto with schema public", "public"),
    "in a schema of its own": (
        'create schema "My Crypto"; create extension pgcrypto with schema "My Crypto";'
        ' grant usage on schema "My Crypto" to public',
        "My Crypto",
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("by", ["psql", "migrate"])
def test_an_owner_without_superuser_rights_seals_wherever_pgcrypto_is(
    own_cluster: str, place: str, by: str
) -> None:
    prepare, where = PLACES[place]
    name = sql.Identifier(f"{by} {place}")
    with psycopg.connect(own_cluster, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(name))
        conn.execute(sql.SQL("grant create on database {} to owner").format(name))
    dsn = make_conninfo(own_cluster, dbname=f"{by} {place}")
    with psycopg.connect(dsn) as conn:
        conn.execute(prepare.encode())

    as_owner = make_conninfo(dsn, user="owner")
    if by == "psql":
        with psycopg.connect(as_owner) as conn:
            conn.execute(schema.install_sql().encode())
    else:
        schema.migrate(as_owner)
    extension = (
        "select nspname from pg_extension join pg_namespace n on n.oid = extnamespace"
        " where extname = 'pgcrypto'"
    )
    with psycopg.connect(as_owner, options=options(KEK)) as conn:
        assert one(conn, extension) == where
        load(conn, MANIFEST)
        init(conn)
        ws = create(conn, "claude-code", "opus")
        call(conn, "workspace.set_secret", ws, "TOKEN", "x")
        rotate(conn)
        reseal(conn)
        retire(conn, 1)
        assert status(conn, verify=True) == [(2, "active", 2, 3, 0)]
        assert call(conn, "workspace.change_runtime", ws, "google-adk").model_was_reset

    # Where it is found does not depend on what a caller's search_path says.
    hostile = f"{options(KEK)} -c search_path=nowhere"
    with psycopg.connect(as_owner, options=hostile) as conn:
        assert pair(conn, ws)[0] == "google-adk"

    schema.downgrade(as_owner, discard_workspaces=True)
    with psycopg.connect(dsn) as conn:
        # What came with us goes with us.
        found = conn.execute(extension).fetchall()
        assert found == ([] if place == "not there" else [(where,)])


# Back to the revision that knows no keys


@pytest.fixture
def migrated(server: Server) -> Iterator[Database]:
    """A database with the packaged catalogue, its keyring without a key."""
    with databases.create(server) as database:
        schema.migrate(database.dsn)
        with database.connect() as conn:
            load(conn, MANIFEST)
        yield database


def test_what_is_stored_plain_survives_the_way_back_and_forth(migrated: Database) -> None:
    conn: Conn
    with migrated.connect() as conn:
        ws = create(conn, "claude-code", "opus")
    schema.downgrade(migrated.dsn, "0001")
    with migrated.connect() as conn:
        assert pair(conn, ws) == ("claude-code", "opus", 1)
    schema.migrate(migrated.dsn)
    with migrated.connect(options=options(KEK)) as conn:
        assert init(conn) == 1
        assert reseal(conn) == (None, 2, 0, 0)
        assert pair(conn, ws) == ("claude-code", "opus", 1)


def test_there_is_no_way_back_for_what_is_sealed(migrated: Database) -> None:
    with migrated.connect(options=options(KEK)) as conn:
        init(conn)
        ws = create(conn, "claude-code", "opus")
    with pytest.raises(SecretsSealed) as caught:
        schema.downgrade(migrated.dsn, "0001")
    assert (caught.value.status, caught.value.code) == (409, "SECRETS_SEALED")
    assert schema.current_revision(migrated.dsn) == schema.head_revision()
    with migrated.connect(options=options(KEK)) as conn:
        assert (pair(conn, ws)[1], key_ids(conn)) == ("opus", {1})
        call(conn, "workspace.delete_workspace", ws)
    schema.downgrade(migrated.dsn, "0001")
    assert schema.current_revision(migrated.dsn) == "0001"
