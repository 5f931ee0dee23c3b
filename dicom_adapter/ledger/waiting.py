"""What becomes due for jobs that wait in the queue: their time is over, or their turn has come."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from dicom_adapter.ledger.jobs import get
from dicom_adapter.ledger.queue import move
from dicom_adapter.ledger.schema import jobs
from dicom_adapter.lifecycle import Action, JobState, Reason
from dicom_adapter.model import ItemState, Job

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
        item=ItemState.FAILED,
        values={
            "finished_at": at,
            "error": f"it waited longer than its queue_timeout of {waited} s: {CURE}",
        },
        reason=Reason.QUEUE_TIMEOUT,
    )
    return get(tx, job_id)


def next_due(tx: Connection) -> datetime | None:
    """Return when the first of the jobs that wait expires; None where none does."""
    query = select(func.min(jobs.c.expires_at)).where(jobs.c.state == JobState.IN_QUEUE)
    found: datetime | None = tx.scalar(query)
    return found
