"""What becomes due for jobs that wait in the queue: their time is over, or their turn has come."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, select

from dicom_adapter.ledger.jobs import get
from dicom_adapter.ledger.queue import move
from dicom_adapter.ledger.schema import jobs
from dicom_adapter.lifecycle import Action, JobState, Reason
from dicom_adapter.model import Job

CURE = "give its platform more room, or the pipeline a longer queue_timeout, and retry it"


def overdue(tx: Connection, at: datetime) -> list[str]:
    """Return the ids of the jobs that have waited longer than their pipelines let them."""
    query = select(jobs.c.id).where(jobs.c.state == JobState.IN_QUEUE, jobs.c.expires_at <= at)
    return list(tx.scalars(query.order_by(jobs.c.seq)))


def expire(tx: Connection, job_id: str, *, at: datetime) -> Job:
    """Fail a job that has waited too long; return it as it is then.

    Raises:
        NotFoundError: there is no such job.
        WrongStateError: it does not wait any more.
    """
    waited = get(tx, job_id).rules.queue_timeout
    move(
        tx,
        job_id,
        Action.EXPIRE,
        at=at,
        values={
            "finished_at": at,
            "error": f"it waited longer than its queue_timeout of {waited} s: {CURE}",
        },
        reason=Reason.QUEUE_TIMEOUT,
    )
    return get(tx, job_id)


def next_due(tx: Connection, at: datetime) -> datetime | None:
    """Return when the first of the jobs that wait expires, or may run again; None for none."""
    found = (
        _first(tx, jobs.c.expires_at, jobs.c.expires_at.is_not(None)),
        _first(tx, jobs.c.ready_at, jobs.c.ready_at > at),
    )
    return min(filter(None, found), default=None)


def _first(
    tx: Connection, moment: Column[datetime], passes: ColumnElement[bool]
) -> datetime | None:
    query = select(moment).where(jobs.c.state == JobState.IN_QUEUE, passes)
    found: datetime | None = tx.scalar(query.order_by(moment).limit(1))
    return found


def back_off(
    tx: Connection, job_id: str, *, at: datetime, lease: str, cause: str, values: Mapping[str, Any]
) -> Job | None:
    """Put a job whose attempt came to nothing back into the queue, to run again after a while.

    Returns it as it is then; None, and nothing is changed, where it has run again often enough, or
    somebody wants its end.

    Raises:
        NotFoundError: there is no such job.
        StaleLeaseError: the lease is not the job's any more.
    """
    job = get(tx, job_id)
    retries = job.rules.retries
    if job.state != JobState.PROCESSING or job.retried >= retries.attempts:
        return None
    ready_at = at + retries.pause(job.retried)
    seconds = (ready_at - at).total_seconds()
    turn = f"retry {job.retried + 1} of {retries.attempts} in {seconds:g} s"
    move(
        tx,
        job_id,
        Action.REQUEUE,
        at=at,
        values={
            **values,
            "started_at": None,
            "retried": job.retried + 1,
            "ready_at": ready_at,
            # The wait is the pipeline's own: it does not count as one for its turn.
            "expires_at": job.rules.expiry(ready_at),
        },
        reason=Reason.BACKOFF,
        why=f"{Reason.BACKOFF}: attempt {job.attempts}: {cause}; {turn}",
        lease=lease,
    )
    return get(tx, job_id)
