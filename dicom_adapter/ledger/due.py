"""What becomes due for jobs that wait in the queue: their time is over, or their turn has come."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from dicom_adapter.ledger.jobs import get
from dicom_adapter.ledger.queue import move
from dicom_adapter.ledger.schema import jobs
from dicom_adapter.lifecycle import Action, JobState, Reason
from dicom_adapter.model import Job

CURE = "give its platform more room, or the pipeline a longer queue_timeout, and retry it"

# Asked whenever a job might start: made once, each costs a quarter.
_WAITS = jobs.c.state == JobState.IN_QUEUE
_OVERDUE = (
    select(jobs.c.id).where(_WAITS, jobs.c.expires_at <= bindparam("at")).order_by(jobs.c.seq)
)
_NEXT_EXPIRY = (
    select(jobs.c.expires_at)
    .where(_WAITS, jobs.c.expires_at.is_not(None))
    .order_by(jobs.c.expires_at)
    .limit(1)
)
_NEXT_READY = (
    select(jobs.c.ready_at)
    .where(_WAITS, jobs.c.ready_at > bindparam("at"))
    .order_by(jobs.c.ready_at)
    .limit(1)
)


def overdue(tx: Connection, at: datetime) -> list[str]:
    """Return the ids of the jobs that have waited longer than their pipelines let them."""
    return list(tx.scalars(_OVERDUE, {"at": at}))


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
    found = (tx.scalar(_NEXT_EXPIRY), tx.scalar(_NEXT_READY, {"at": at}))
    return min(filter(None, found), default=None)


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
