"""Groups know the one before them, jobs what they supersede and who runs them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("groups", sa.Column("previous_id", sa.Text(), nullable=True))
    op.create_index("ix_groups_key", "groups", ["ae_title", "key"])
    op.add_column("submissions", sa.Column("supersedes", sa.Text(), nullable=True))
    op.create_index("ix_submissions_group_id", "submissions", ["group_id"])
    op.add_column("jobs", sa.Column("supersedes", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("lease", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("leased_until", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo the migration."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("leased_until")
        batch_op.drop_column("lease")
        batch_op.drop_column("supersedes")
    op.drop_index("ix_submissions_group_id", table_name="submissions")
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.drop_column("supersedes")
    op.drop_index("ix_groups_key", table_name="groups")
    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.drop_column("previous_id")
