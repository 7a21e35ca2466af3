"""What alembic runs: for `pyapi.schema`, which sets config.attributes, and for its own command.

The command works in a checkout, on the database that `-x database=...` names, else DATABASE_URL,
else libpq's variables. `-x lock_timeout=...` and `-x discard_workspaces=on` are as in pyapi.schema.
"""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import context

# The advisory lock of whoever migrates: a number without meaning, the same in every release.
MIGRATION_LOCK = 5_275_921_304_187_263_941

options: dict[str, Any] = {
    "database": os.environ.get("DATABASE_URL", ""),
    "lock_timeout": "5s",
    "steps": [],
    **context.get_x_argument(as_dictionary=True),
    **context.config.attributes,
}


def connect() -> psycopg.Connection[Any]:
    conninfo = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", options["database"])
    # Never a prepared statement: the connection may go through a transaction pooler.
    return psycopg.connect(conninfo, prepare_threshold=None)


def set_local(setting: str, value: str) -> None:
    context.execute(sa.select(sa.func.set_config(setting, value, True)))


def run(**target: Any) -> None:
    """Do what alembic was told to, in one transaction, while no other migrator does anything."""
    context.configure(
        **target,
        version_table_schema="registry",
        on_version_apply=lambda *, step, **_: options["steps"].append(step),
    )
    with context.begin_transaction():
        set_local("lock_timeout", options["lock_timeout"])
        if "discard_workspaces" in options:
            set_local("runtime_registry.discard_workspaces", options["discard_workspaces"])
        # Before alembic reads the revision: who had to wait sees what the other one has done.
        context.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        if not context.get_context().opts.get("dont_mutate"):
            # Where alembic keeps the revision. IF NOT EXISTS asks for a right that may be gone.
            context.execute(
                "do $$ begin if to_regnamespace('registry') is null then create schema registry; "
                "end if; end $$"
            )
        context.run_migrations()
        last = options["steps"][-1] if options["steps"] else None
        if last and last.is_migration and not last.destination_revision_ids:
            # Nothing of ours is left but the version table: alembic needed it until now.
            context.execute("drop table if exists registry.alembic_version")
            context.execute("drop schema registry")
        elif not last and "connection" in target:
            # Nothing was done, so what was made for it shall not stay.
            target["connection"].rollback()


if context.is_offline_mode():
    run(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
else:
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=sa.pool.NullPool,
        # Above it, whoever had to wait would see the database as it was before the wait.
        isolation_level="READ COMMITTED",
        use_native_hstore=False,
    )
    with engine.connect() as connection:
        run(connection=connection)
