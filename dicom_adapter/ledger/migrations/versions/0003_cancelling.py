"""Jobs know how they are cancelled, and from which state they were."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column(
        "jobs", sa.Column("cancel_policy", sa.Text(), nullable=False, server_default="kill")
    )
    op.add_column("jobs", sa.Column("cancelled_from", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo the migration."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("cancelled_from")
        batch_op.drop_column("cancel_policy")
