"""What may run at another platform, until its end is known."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def _text(name: str, **options: object) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, **options)  # type: ignore[arg-type]


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "remote_jobs",
        *map(_text, ("request_id", "place", "job_id", "executor")),
        _text("remote_id", server_default=""),
        sa.Column("unwanted", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_remote_jobs")),
    )


def downgrade() -> None:
    """Undo the migration."""
    op.drop_table("remote_jobs")
