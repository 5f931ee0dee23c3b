"""The tables of the index: what is kept, as people look for it."""

from sqlalchemy import JSON, Column, Index, Table, Text, UniqueConstraint

from dicom_adapter.ledger.columns import integer, moment, sequence, text_column
from dicom_adapter.ledger.schema import metadata

# What is kept and not in the index yet; whoever decides that it is kept names it here.
unindexed = Table("unindexed", metadata, text_column("instance_id", primary_key=True))

# A column for each attribute that people search by: texts, and empty ones where it is absent.
indexed_studies = Table(
    "indexed_studies",
    metadata,
    sequence(),
    text_column("uid", unique=True),
    text_column("patient_id"),
    text_column("issuer"),
    text_column("patient_name"),
    text_column("patient_birth_date"),
    text_column("patient_sex"),
    text_column("accession_number"),
    text_column("study_id"),
    text_column("study_date"),
    text_column("study_time"),
    text_column("study_description"),
    text_column("referring_physician"),
    # Names as they are compared: without case and accents, each component group between two `=`.
    text_column("patient_name_folded"),
    text_column("referring_physician_folded"),
    sqlite_autoincrement=True,
)

# What one AE title keeps of a series.
indexed_series = Table(
    "indexed_series",
    metadata,
    sequence(),
    text_column("ae_title"),
    text_column("uid"),
    text_column("study_uid"),
    text_column("modality"),
    text_column("series_number"),
    text_column("series_date"),
    text_column("series_time"),
    text_column("series_description"),
    text_column("body_part"),
    text_column("manufacturer"),
    text_column("model"),
    text_column("protocol"),
    text_column("laterality"),
    text_column("sop_class_uid"),
    # Of its instances that are in the index.
    integer("instances"),
    integer("frames"),
    integer("size"),
    moment("first_received_at"),
    moment("last_received_at"),
    # A broken device may give one UID to series of two studies.
    UniqueConstraint("uid", "study_uid", "ae_title"),
    sqlite_autoincrement=True,
)
Index("ix_indexed_series_study", *indexed_series.c["study_uid", "modality"])
Index("ix_indexed_series_ae_title", *indexed_series.c["ae_title", "study_uid"])

indexed_instances = Table(
    "indexed_instances",
    metadata,
    text_column("instance_id", primary_key=True),
    text_column("series_uid"),
    text_column("study_uid"),
    integer("frames"),
    # Position and orientation; null where it does not say.
    Column("placement", JSON(none_as_null=True)),
    # Its patient's ID and who issued it, parted by a backslash; empty where it has none, and null
    # where it was not asked when it came into the index.
    Column("patient", Text),
)
Index("ix_indexed_instances_series", *indexed_instances.c["series_uid", "study_uid"])
