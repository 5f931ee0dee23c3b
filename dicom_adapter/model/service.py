"""What the service promises and tells of itself: what happened, runs, and needs a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_adapter.model.instances import Keeping


class Durability(StrEnum):
    """What everything that was acknowledged survives."""

    POWER_LOSS = "power-loss"
    PROCESS_CRASH = "process-crash"


class DisorderKind(StrEnum):
    """How a file of the spool and the ledger do not agree."""

    #: A file that the ledger did not know, and knows now.
    ADOPTED = "adopted"
    #: A file that the ledger did not know, and need not: the same bytes are kept, or delivered.
    REDUNDANT = "redundant"
    #: A file that the ledger does not know, and that is no instance of ours.
    UNKNOWN = "unknown"
    #: An instance whose file is gone.
    MISSING = "missing"
    #: An instance whose file has other bytes than were received.
    BROKEN = "broken"
    #: A file that the disk does not give.
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Disorder:
    """A file and the ledger that do not agree, and what was done about it."""

    kind: DisorderKind
    #: The instance's id, or the file's name where it has none.
    instance_id: str
    #: What was done, or is to be done.
    cure: str

    @property
    def needs_person(self) -> bool:
        """True where it is not mended yet."""
        return self.kind not in (DisorderKind.ADOPTED, DisorderKind.REDUNDANT)


@dataclass(frozen=True)
class Event:
    """One move of a job, group, submission or instance, for the audit trail."""

    number: int
    at: datetime
    actor: str
    kind: str
    subject: str
    action: str
    from_state: str
    to_state: str
    reason: str
    #: Of a job; empty for what belongs to none.
    project: str = ""


@dataclass(frozen=True)
class PlatformState:
    """Whether the platform starts jobs, and how many run and wait."""

    #: The event of the pause; None while jobs are started.
    paused: Event | None
    running: int
    waiting: int


@dataclass(frozen=True)
class Rejection:
    """Associations that were rejected alike, with the values that the peer sent."""

    called_ae_title: str
    calling_ae_title: str
    address: str
    why: str
    count: int
    last_at: datetime


@dataclass(frozen=True)
class Disk:
    """The volume of the data folder: bytes, and fractions from 0 to 1."""

    free: int
    used_fraction: float
    watermark: float
    reserve: int


@dataclass(frozen=True)
class ServiceStatus:
    """What runs, what is kept and why, and what needs a person."""

    version: str
    started_at: datetime
    dicom: tuple[str, ...]
    grpc: tuple[str, ...]
    associations: int
    keeping: tuple[Keeping, ...]
    disk: Disk
    durability: Durability
    platform: str
    jobs: Mapping[str, int]
    attention: tuple[str, ...]
    rejections: tuple[Rejection, ...]
