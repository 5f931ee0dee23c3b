"""Webhooks: how far each was told, what is still to be sent, and what was known of deleted jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _text(name: str, **options: object) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, **options)  # type: ignore[arg-type]


def _number(name: str, **options: object) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), **{"nullable": False, **options})  # type: ignore[arg-type]


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "webhooks",
        _text("name"),
        _number("event"),
        _number("held_until", nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "deleted_jobs",
        _text("id"),
        _number("event"),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_jobs")),
    )
    op.create_table(
        "deliveries",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        *map(_text, ("id", "webhook")),
        _number("event"),
        *map(_text, ("type", "job_id", "job", "body", "state")),
        _number("attempts", server_default=sa.text("0")),
        *map(_number, ("created_at", "queued_at", "ready_at")),
        _number("settled_at", nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        _text("error", server_default=""),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("id", name=op.f("uq_deliveries_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_deliveries_event", "deliveries", ["webhook", "event"], unique=True)
    op.create_index("ix_deliveries_work", "deliveries", ["state", "webhook", "ready_at"])
    op.create_index("ix_deliveries_settled_at", "deliveries", ["state", "settled_at"])


def downgrade() -> None:
    """Undo the migration."""
    for table in ("deliveries", "deleted_jobs", "webhooks"):
        op.drop_table(table)
