"""What others are told of jobs: the messages of webhooks, and what becomes of each."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    SENT = "sent"
    PARKED = "parked"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Delivery:
    """A message to one webhook; its id is the one that the receiver knows doubles by."""

    id: str
    webhook: str
    #: The number of the event that it tells of.
    event: int
    type: str
    job_id: str
    job: str
    body: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    #: When it was made, or was last retried by a person.
    queued_at: datetime
    ready_at: datetime
    settled_at: datetime | None
    #: The HTTP status of the last answer; None where there was none.
    status: int | None
    error: str


@dataclass(frozen=True)
class JobFacts:
    """What a message says of a job: no UID, no error text, no path."""

    id: str
    name: str
    project: str
    pipeline: str
    pipeline_version: str
    ae_title: str
    state: str
    reason: str
    priority: str
    instances: int
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
