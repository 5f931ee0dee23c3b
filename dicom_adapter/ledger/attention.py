"""Counts what waits for a person, or for the platform, without reading it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, func, select

from dicom_adapter.ledger.schema import deliveries, groups, instances, jobs, submissions
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import DeliveryState, GroupState, InstanceState, SubmissionState


@dataclass(frozen=True)
class Waiting:
    """How much waits, and for what."""

    parked_groups: int
    quarantined: int
    parked_submissions: int
    repeated_submissions: int
    parked_deliveries: int
    repeated_deliveries: int
    #: Instances that a job processor has still to see, or has in a group, by their AE title.
    instances_of: Mapping[str, int]


def waiting(tx: Connection) -> Waiting:
    """Return how much waits now."""
    undecided = (
        select(instances.c.ae_title, func.count())
        .select_from(instances.outerjoin(groups, groups.c.id == instances.c.group_id))
        .where(
            (instances.c.state == InstanceState.RECEIVED)
            | (
                (instances.c.state == InstanceState.KEPT)
                & groups.c.state.in_([GroupState.OPEN, GroupState.PARKED])
            )
        )
        .group_by(instances.c.ae_title)
    )
    pending = submissions.c.state == SubmissionState.PENDING
    unsent = deliveries.c.state == DeliveryState.PENDING
    in_trouble = select(deliveries.c.webhook).where(unsent, deliveries.c.attempts > 0)
    return Waiting(
        parked_groups=_count(tx, select(groups.c.seq).where(groups.c.state == GroupState.PARKED)),
        quarantined=_count(
            tx, select(instances.c.seq).where(instances.c.state == InstanceState.QUARANTINED)
        ),
        parked_submissions=_count(
            tx, select(submissions.c.seq).where(submissions.c.state == SubmissionState.PARKED)
        ),
        repeated_submissions=_count(
            tx, select(submissions.c.seq).where(pending, submissions.c.attempts > 0)
        ),
        parked_deliveries=_count(
            tx, select(deliveries.c.seq).where(deliveries.c.state == DeliveryState.PARKED)
        ),
        repeated_deliveries=_count(
            # The others wait with the one that is tried.
            tx,
            select(deliveries.c.seq).where(unsent, deliveries.c.webhook.in_(in_trouble)),
        ),
        instances_of={row[0]: row[1] for row in tx.execute(undecided)},
    )


def failed_jobs(tx: Connection, since: datetime) -> int:
    """Return how many jobs have failed since a time, and still are."""
    return _count(
        tx,
        select(jobs.c.seq).where(jobs.c.state == JobState.FAILED, jobs.c.finished_at >= since),
    )


def _count(tx: Connection, query: Select[tuple[int]]) -> int:
    return tx.scalar(select(func.count()).select_from(query.subquery())) or 0
