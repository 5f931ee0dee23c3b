"""Submissions and events name a project, and jobs are found by theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column(
        "submissions",
        sa.Column("project", sa.Text(), server_default=sa.text("'default'"), nullable=False),
    )
    op.add_column("events", sa.Column("project", sa.Text(), server_default="", nullable=False))
    op.drop_index("ix_jobs_queue", table_name="jobs")
    queue = ["state", "project", "pipeline", "priority", "queued_at", "seq"]
    op.create_index("ix_jobs_queue", "jobs", queue)
    op.create_index("ix_jobs_project_started", "jobs", ["project", "started_at"])
    op.create_index("ix_jobs_project", "jobs", ["project", "state", "seq"])
    op.create_index("ix_jobs_project_pipeline", "jobs", ["project", "pipeline", "state", "seq"])


def downgrade() -> None:
    """Undo the migration."""
    op.drop_index("ix_jobs_project_pipeline", table_name="jobs")
    op.drop_index("ix_jobs_project", table_name="jobs")
    op.drop_index("ix_jobs_project_started", table_name="jobs")
    op.drop_index("ix_jobs_queue", table_name="jobs")
    queue = ["state", "pipeline", "priority", "queued_at", "seq"]
    op.create_index("ix_jobs_queue", "jobs", queue)
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("project")
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.drop_column("project")
