"""The database's side: where its SQL is, and how to install, migrate and remove it.

All of it is in the package, so an installed copy needs no checkout. Connections are libpq's: a
connection string or URL, and what that leaves open is taken from the PG* environment variables.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from .errors import InvalidArgument, SchemaTooNew, translate

_PACKAGE = Path(__file__).parent
# alembic keeps what it is doing in globals of its own.
_alembic_lock = threading.Lock()


def _folder(packaged: str, checkout: str) -> Path:
    """Return a folder of the wheel or, in a checkout, the one it is made of."""
    folder = _PACKAGE / packaged
    return folder if folder.is_dir() else _PACKAGE.parent / checkout


def sql_folder() -> Path:
    """Return the folder with install.sql."""
    return _folder("_sql", "sql")


def migrations_folder() -> Path:
    """Return the folder with alembic's env.py."""
    return _folder("_alembic", "alembic")


def install_sql() -> str:
    r"""Return all of install.sql as one text: what its `\ir` lines include, in their place.

    Any client can run it, in one transaction, on a database without Runtime Registry.
    """
    return _expand(sql_folder() / "install.sql")


def revision_sql() -> str:
    """Return `install_sql()` without the revision stamp, which is alembic's to write.

    This is what a first revision is frozen from.
    """
    return _expand(sql_folder() / "install.sql", leave_out="version.sql")


def _expand(file: Path, leave_out: str = "") -> str:
    def included(line: re.Match[str]) -> str:
        return "" if line[1] == leave_out else _expand(file.parent / line[1], leave_out)

    return re.sub(r"^\\ir (\S+)\n", included, file.read_text("utf-8"), flags=re.MULTILINE)


def default_manifest() -> dict[str, Any]:
    """Return the registry manifest that comes with the package, for `load_registry`."""
    file = sql_folder() / "registry" / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return manifest


def head_revision() -> str:
    """Return the revision that `migrate` goes to."""
    # Revisions are numbered, in one line: no need to load alembic to find the last.
    return max(file.name for file in (migrations_folder() / "versions").glob("*.py"))[:4]


def current_revision(database: str | psycopg.Connection[Any] = "") -> str | None:
    """Return the revision a database stands at; None if Runtime Registry is not installed there.

    `database` is where to connect, or a connection, which is used as it is.

    Raises: ConnectionLost, PermissionDenied (only the owner can read it) and other failures.
    """
    try:
        if isinstance(database, str):
            with psycopg.connect(database, prepare_threshold=None) as conn:
                return _revision(conn)
        return _revision(database)
    except psycopg.Error as error:
        raise translate(error, harmless=True) from error


def _revision(conn: psycopg.Connection[Any]) -> str | None:
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    if cursor.execute("select to_regclass('registry.alembic_version')").fetchone() is None:
        return None
    cursor.execute("select version_num from registry.alembic_version")
    revision: str | None = cursor.fetchone()
    return revision


def migrate(database: str = "", revision: str = "head", *, lock_timeout: str = "5s") -> list[str]:
    """Install Runtime Registry in a database, or bring it up to date.

    Everything happens in one transaction, under a lock that makes a second migrator wait. No lock
    is waited for longer than `lock_timeout` (a Postgres duration; "0" waits for ever). The role
    needs the right to create schemas in the database, and to create roles the first time.

    Returns the revisions that were applied, in order; none if there was nothing to do.

    Raises: InvalidArgument (no such revision), LockTimeout, SchemaTooNew, PermissionDenied,
    ConnectionLost and other failures. After any of them the database is as it was.
    """
    return _run("upgrade", database, revision, lock_timeout=lock_timeout)


def downgrade(
    database: str = "",
    revision: str = "base",
    *,
    lock_timeout: str = "5s",
    discard_workspaces: bool = False,
) -> list[str]:
    """Take a database back to an older revision; to `base`, uninstall Runtime Registry.

    Uninstalling is refused while there are workspaces, unless `discard_workspaces`. It drops what
    was installed and nothing else; the three roles stay if something else in the cluster uses them.

    Returns the revisions that were undone, in order.

    Raises: WorkspacesExist, and what `migrate` raises.
    """
    discard = "on" if discard_workspaces else "off"
    return _run(
        "downgrade", database, revision, lock_timeout=lock_timeout, discard_workspaces=discard
    )


def _run(command: str, database: str, revision: str, **options: str) -> list[str]:
    # Not at the top: alembic and SQLAlchemy take longer to import than most calls take to run.
    import alembic.command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    steps: list[Any] = []
    config = Config(attributes={"database": database, "steps": steps, **options})
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known | {"head", "base"}:
        raise InvalidArgument.make("revision", "is not a revision of this release")
    try:
        with _alembic_lock:
            getattr(alembic.command, command)(config, revision)
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise translate(error.orig, harmless=True) from error.orig
    except CommandError as error:
        if isinstance(error.__cause__, ResolutionError):
            raise SchemaTooNew.make() from error
        raise
    return [step.up_revision_id for step in steps]
