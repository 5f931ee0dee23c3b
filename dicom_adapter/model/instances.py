"""What was received: instances, the groups that they are in, and what is kept of them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

#: A deflated data set is inflated to no more than this when its attributes are read: a file of a
#: few megabytes may hold a thousand times as many.
LARGEST_HEADER = 64 * 1024**2
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class InstanceState(StrEnum):
    """Where a received instance stands between its sender and the reclaimer."""

    RECEIVED = "received"
    KEPT = "kept"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    RECLAIMING = "reclaiming"
    RECLAIMED = "reclaimed"


class GroupState(StrEnum):
    """Where a group stands."""

    OPEN = "open"
    PARKED = "parked"
    DISPATCHED = "dispatched"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class StoredInstance:
    """One received instance: what it is, who sent it, and where its Part 10 file lies.

    UIDs are hidden from `repr`, so that no log line shows them by accident.
    """

    id: str
    ae_title: str
    association: int
    calling_ae_title: str
    source_address: str
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    instance_number: int | None
    sha256: str
    size: int
    received_at: datetime
    path: Path

    def read(self, *tags: str | int) -> Dataset:
        """Read the attributes of these keywords or tags, or all, without pixel data.

        Raises:
            OSError: the file is not there any more.
        """
        wanted: list[BaseTag | int] | None = [Tag(tag) for tag in tags] or None
        if self.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            return _begin_of_deflated(self.path, wanted)
        return dcmread(self.path, stop_before_pixels=True, specific_tags=wanted)


def _begin_of_deflated(path: Path, tags: list[BaseTag | int] | None) -> Dataset:
    """Inflate a file as far as all but its pixel data may reach: pydicom would inflate it all."""
    meta = read_file_meta_info(path)
    with path.open("rb") as file:
        # Preamble and prefix, then the element that says how long the others are (PS3.10 7.1).
        file.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        packed = file.read(LARGEST_HEADER)
    data = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, LARGEST_HEADER))
    dataset = read_dataset(
        data,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag in _PIXEL_DATA,
        specific_tags=tags,
    )
    dataset.file_meta = meta
    return dataset


class Duplicates(StrEnum):
    """Which of several instances with the same SOP Instance UID, but other bytes, a job gets."""

    KEEP_FIRST = "keep-first"
    KEEP_LAST = "keep-last"
    KEEP_BOTH = "keep-both"

    def seen(self, given: Sequence[StoredInstance]) -> list[StoredInstance]:
        """Return those that a job gets of these, in their order."""
        if self is Duplicates.KEEP_BOTH:
            return list(given)
        chosen: dict[str, StoredInstance] = {}
        for instance in given:
            other = chosen.setdefault(instance.sop_instance_uid, instance)
            if self._is_before(instance, other):
                chosen[instance.sop_instance_uid] = instance
        ids = {instance.id for instance in chosen.values()}
        return [instance for instance in given if instance.id in ids]

    def _is_before(self, one: StoredInstance, other: StoredInstance) -> bool:
        if self is Duplicates.KEEP_LAST:
            # Of the same moment, the one that is given later.
            return one.received_at >= other.received_at
        # An id begins with the time of its first reception; `received_at` is that of its last.
        return one.id < other.id


class Resend(StrEnum):
    """What comes of the same bytes when they are sent again after their group was closed."""

    PROCESS = "process"
    IGNORE = "ignore"


@dataclass(frozen=True)
class Received:
    """An instance that was just stored, and the C-MOVE that it came by: whose, and its number."""

    instance: StoredInstance
    move_originator: tuple[str, int] | None = None
    resend: Resend = Resend.PROCESS


@dataclass(frozen=True)
class Recorded:
    """What the ledger has made of an instance that was received."""

    #: The id that stands for these bytes: its own, or that of an earlier reception.
    instance_id: str
    is_new: bool


@dataclass(frozen=True)
class InstanceGroup:
    """Instances that belong together, handed to the processor when they are due.

    What comes for a key whose group was handed over already is late: it makes another group.
    """

    id: str
    ae_title: str
    key: str = field(repr=False)
    opened_at: datetime
    last_instance_at: datetime
    instances: tuple[StoredInstance, ...]
    #: The id of the group of the same key that was handed over before, for a late one.
    previous: str | None = None
    #: What is still kept of all the groups of the key before, in the order in which it came.
    earlier: tuple[StoredInstance, ...] = ()

    @property
    def whole(self) -> tuple[StoredInstance, ...]:
        """What is kept of the groups before, then what is late."""
        return self.earlier + self.instances


@dataclass(frozen=True)
class GroupSummary:
    """A group as people see it."""

    id: str
    ae_title: str
    key: str = field(repr=False)
    state: GroupState
    instances: int
    size: int
    opened_at: datetime
    last_instance_at: datetime
    ready_at: datetime
    attempts: int
    error: str


@dataclass(frozen=True)
class QuarantinedInstance:
    """An instance that no group could take, and why."""

    instance: StoredInstance
    reason: str
    attempts: int


@dataclass(frozen=True)
class Keeping:
    """How much of the spool is kept for one reason."""

    reason: str
    instances: int
    size: int
    oldest: datetime | None
