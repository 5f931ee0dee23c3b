"""What is kept, as people look for it: studies, their series, and the instances of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dicom_adapter.model.instances import StoredInstance

#: What the index has of each study, with its patient, and of each series: attributes by keyword.
STUDY_ATTRIBUTES = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ReferringPhysicianName",
)
SERIES_ATTRIBUTES = (
    "Modality",
    "SeriesNumber",
    "SeriesDate",
    "SeriesTime",
    "SeriesDescription",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "ProtocolName",
    "Laterality",
    "SOPClassUID",
)
#: Told apart by their case and accents nowhere: people do not know how a name was written.
NAMES = ("PatientName", "ReferringPhysicianName")

#: Where a slice lies: x, y, z in mm, and the direction cosines of its rows and columns
#: (PS3.3 section C.7.6.2.1.1).
Position = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """Where the picture of an instance lies in the patient, as far as the instance says so."""

    position: Position | None = None
    orientation: Orientation | None = None


@dataclass(frozen=True)
class Description:
    """What one instance says of itself: values by keyword, empty ones left out."""

    #: Of its study (with the patient) and its series, as the index has columns for.
    study: Mapping[str, str] = field(repr=False)
    series: Mapping[str, str] = field(repr=False)
    placement: Placement = Placement()
    frames: int = 1


def patient_of(attributes: Mapping[str, str]) -> str:
    """Return whose these attributes are: two hospitals may give one ID to two people.

    Empty without an ID.
    """
    patient_id = attributes.get("PatientID", "")
    # Neither can have a backslash in it (PS3.5 section 6.2, LO).
    return f"{patient_id}\\{attributes.get('IssuerOfPatientID', '')}" if patient_id else ""


class Matching(StrEnum):
    """How the value of an attribute is compared (PS3.4 section C.2.2.2)."""

    #: Letter by letter, without regard to case; `*` is any text and `?` any character.
    TEXT = "text"
    #: The same in any of a name's component groups, without regard to accents.
    NAME = "name"
    #: Exactly.
    UID = "uid"
    #: Between two values, of which one may be absent.
    RANGE = "range"


@dataclass(frozen=True)
class Span:
    """From one value to another, both included; None: from the first, or to the last there is."""

    first: str | None
    last: str | None


@dataclass(frozen=True)
class Criterion:
    """What an attribute has to be: any of these values."""

    keyword: str
    matching: Matching
    values: tuple[str | Span, ...] = field(repr=False)


@dataclass(frozen=True)
class StudySummary:
    """A study as people find it; `attributes` are by keyword, texts as the index has them."""

    uid: str = field(repr=False)
    attributes: Mapping[str, str] = field(repr=False)
    modalities: tuple[str, ...]
    series: int
    instances: int
    size: int
    #: When the first and the last of its instances came.
    first_received_at: datetime
    last_received_at: datetime


@dataclass(frozen=True)
class KeptStudy:
    """What an AE title keeps of a study."""

    study_instance_uid: str = field(repr=False)
    instances: int
    #: Bytes of its files.
    size: int
    #: When the last of its instances came.
    last_received_at: datetime


@dataclass(frozen=True)
class SeriesSummary:
    """What an AE title keeps of a series; `attributes` are by keyword, of it and of its study."""

    ae_title: str
    uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    attributes: Mapping[str, str] = field(repr=False)
    instances: int
    frames: int
    size: int
    first_received_at: datetime
    last_received_at: datetime


@dataclass(frozen=True)
class IndexedInstance:
    """An instance that is kept, and where its picture lies."""

    stored: StoredInstance
    placement: Placement
    frames: int
    #: As `patient_of` has it; None where that is not known.
    patient: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Part:
    """What is wanted of one series, or of every series of a study: one of the two is named."""

    series: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    #: As people write it; empty: what is usual.
    range: str = ""
    order: str = ""
