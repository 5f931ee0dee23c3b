"""What becomes of a submission whose series are not what the pipeline requires."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    column = sa.Column("on_mismatch", sa.Text(), nullable=False, server_default=sa.text("'park'"))
    op.add_column("submissions", column)


def downgrade() -> None:
    """Undo the migration."""
    op.drop_column("submissions", "on_mismatch")
