"""Whose each instance of the index is: a study may have been put together of two patients."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("indexed_instances", sa.Column("patient", sa.Text()))


def downgrade() -> None:
    """Undo the migration."""
    op.drop_column("indexed_instances", "patient")
