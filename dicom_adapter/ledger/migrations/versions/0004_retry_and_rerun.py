"""Jobs are run again: under their own id, which keeps the outputs from before, or a new one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("jobs", sa.Column("rerun_of", sa.Text(), nullable=True))
    op.create_table(
        "superseded_outputs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_superseded_outputs_job_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", "path", name=op.f("pk_superseded_outputs")),
    )


def downgrade() -> None:
    """Undo the migration."""
    op.drop_table("superseded_outputs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("rerun_of")
