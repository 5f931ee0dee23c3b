"""The queue is ordered by pipeline, priority and the time that a job came into it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LISTS = {
    "ix_jobs_state": (),
    "ix_jobs_pipeline": ("pipeline",),
    "ix_jobs_ae_title": ("ae_title",),
    "ix_jobs_both": ("pipeline", "ae_title"),
}


def upgrade() -> None:
    """Apply the migration."""
    # With a default: SQLite then adds it without writing the whole table anew.
    queued_at = sa.Column("queued_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("jobs", queued_at)
    op.execute("UPDATE jobs SET queued_at = created_at")
    op.drop_index("ix_jobs_queue", table_name="jobs")
    op.create_index("ix_jobs_queue", "jobs", ["state", "pipeline", "priority", "queued_at", "seq"])
    op.create_index("ix_jobs_started", "jobs", ["pipeline", "started_at"])
    for name, columns in LISTS.items():
        op.create_index(name, "jobs", [*columns, "state", "seq"])


def downgrade() -> None:
    """Undo the migration."""
    for name in LISTS:
        op.drop_index(name, table_name="jobs")
    op.drop_index("ix_jobs_started", table_name="jobs")
    op.drop_index("ix_jobs_queue", table_name="jobs")
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "seq"])
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("queued_at")
