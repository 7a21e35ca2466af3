"""A reset and a move of a fleet look up less."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def run(direction: str) -> None:
    """Run the SQL that is frozen beside this file."""
    sql = Path(__file__).with_suffix(f".{direction}.sql").read_text("utf-8")
    op.execute(sa.text(sql.replace(":", r"\:")))  # text() takes a bare :name for a parameter


def upgrade() -> None:
    run("up")


def downgrade() -> None:
    run("down")
