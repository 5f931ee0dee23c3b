"""What was received: instances, the groups that they are in, and what is kept of them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.tag import Tag


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
        return dcmread(
            self.path, stop_before_pixels=True, specific_tags=[Tag(tag) for tag in tags] or None
        )


@dataclass(frozen=True)
class Received:
    """An instance that was just stored, and the C-MOVE that it came by: whose, and its number."""

    instance: StoredInstance
    move_originator: tuple[str, int] | None = None


@dataclass(frozen=True)
class InstanceGroup:
    """Instances that belong together, handed to the processor when they are due."""

    id: str
    ae_title: str
    key: str = field(repr=False)
    opened_at: datetime
    last_instance_at: datetime
    instances: tuple[StoredInstance, ...]


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
