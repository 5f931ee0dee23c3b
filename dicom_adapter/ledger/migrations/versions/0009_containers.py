"""Jobs know the container image that they run in, and what exactly it was."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    for name in ("image", "image_id"):
        op.add_column(
            "jobs", sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)
        )


def downgrade() -> None:
    """Undo the migration."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("image_id")
        batch_op.drop_column("image")
