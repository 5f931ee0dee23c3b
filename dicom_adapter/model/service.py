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
