"""An index of what is kept, and by what jobs are told to be doubles."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_STUDY = (
    "patient_id",
    "issuer",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
    "study_id",
    "study_date",
    "study_time",
    "study_description",
    "referring_physician",
    "patient_name_folded",
    "referring_physician_folded",
)
_SERIES = (
    "modality",
    "series_number",
    "series_date",
    "series_time",
    "series_description",
    "body_part",
    "manufacturer",
    "model",
    "protocol",
    "laterality",
    "sop_class_uid",
)


def _text(name: str, **options: object) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, **options)  # type: ignore[arg-type]


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "unindexed",
        _text("instance_id"),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_unindexed")),
    )
    op.create_table(
        "indexed_studies",
        sa.Column("seq", sa.Integer(), nullable=False),
        _text("uid"),
        *map(_text, _STUDY),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_indexed_studies")),
        sa.UniqueConstraint("uid", name=op.f("uq_indexed_studies_uid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "indexed_series",
        sa.Column("seq", sa.Integer(), nullable=False),
        _text("ae_title"),
        _text("uid"),
        _text("study_uid"),
        *map(_text, _SERIES),
        *map(_integer, ("instances", "frames", "size", "first_received_at", "last_received_at")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_indexed_series")),
        sa.UniqueConstraint(
            "uid", "study_uid", "ae_title", name=op.f("uq_indexed_series_uid_study_uid_ae_title")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_indexed_series_study", "indexed_series", ["study_uid", "modality"])
    op.create_index("ix_indexed_series_ae_title", "indexed_series", ["ae_title", "study_uid"])
    op.create_table(
        "indexed_instances",
        _text("instance_id"),
        _text("series_uid"),
        _text("study_uid"),
        _integer("frames"),
        sa.Column("placement", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_indexed_instances")),
    )
    op.create_index("ix_indexed_instances_series", "indexed_instances", ["series_uid", "study_uid"])
    op.add_column("jobs", _text("inputs_sha256", server_default=""))
    op.create_index("ix_jobs_inputs", "jobs", ["inputs_sha256", "pipeline"])


def downgrade() -> None:
    """Undo the migration."""
    op.drop_index("ix_jobs_inputs", "jobs")
    op.drop_column("jobs", "inputs_sha256")
    for table in ("indexed_instances", "indexed_series", "indexed_studies", "unindexed"):
        op.drop_table(table)
