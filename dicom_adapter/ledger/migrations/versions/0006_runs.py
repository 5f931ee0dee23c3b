"""Jobs know the rules of their runs, their phase, and from when and until when they wait."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("jobs", sa.Column("rules", sa.JSON(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("retried", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("jobs", sa.Column("ready_at", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("phase", sa.Text(), nullable=True))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index("ix_jobs_expires_at", ["state", "expires_at"], unique=False)
        batch_op.create_index("ix_jobs_ready_at", ["state", "ready_at"], unique=False)


def downgrade() -> None:
    """Undo the migration."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_ready_at")
        batch_op.drop_index("ix_jobs_expires_at")
        batch_op.drop_column("phase")
        batch_op.drop_column("expires_at")
        batch_op.drop_column("ready_at")
        batch_op.drop_column("retried")
        batch_op.drop_column("rules")
