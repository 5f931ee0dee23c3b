"""The items of a job end one by one, each with its own end."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        sa.Column("max_rss_bytes", sa.BigInteger(), nullable=True),
        sa.Column("wall_seconds", sa.Float(), nullable=True),
    ]


def upgrade() -> None:
    """Apply the migration."""
    for column in _columns():
        op.add_column("job_items", column)
    # A job had one item until now, which ended as it did.
    op.execute(
        "UPDATE job_items SET (reason, error, exit_code, started_at, finished_at, cpu_seconds,"
        " max_rss_bytes, wall_seconds) = (SELECT reason, error, exit_code, started_at,"
        " finished_at, cpu_seconds, max_rss_bytes, wall_seconds"
        " FROM jobs WHERE jobs.id = job_items.job_id)"
    )


def downgrade() -> None:
    """Undo the migration."""
    with op.batch_alter_table("job_items", schema=None) as batch_op:
        for column in _columns():
            batch_op.drop_column(column.name)
