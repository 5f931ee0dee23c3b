"""Who runs a job: the lease that its attempt holds, renews, and may lose to another.

The token is the fence: an attempt may change its job while the job's row names its token, however
late it is. The time only says when another may take the job over.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    func,
    literal,
    select,
    update,
)

from dicom_adapter.errors import StaleLeaseError
from dicom_adapter.ledger.columns import EPOCH, Moment
from dicom_adapter.ledger.schema import jobs
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import Job, JobItem

LEASE = timedelta(seconds=60)
#: The states in which an attempt holds its job.
HELD = frozenset({JobState.PROCESSING, JobState.CANCELLING})
# Asked several times for each attempt: made once, it costs a quarter.
_RENEW = (
    update(jobs)
    .where(jobs.c.lease.in_(bindparam("leases", expanding=True)), jobs.c.state.in_(sorted(HELD)))
    .values(leased_until=bindparam("new_end"))
    .returning(jobs.c.lease)
)
_LEASE_OF = select(jobs.c.lease).where(jobs.c.id == bindparam("job_id")).with_for_update()


@dataclass(frozen=True)
class Claim:
    """A job that was taken to be run, the item that is run, and the lease of this attempt."""

    job: Job
    item: JobItem
    lease: str


@dataclass(frozen=True)
class Lost:
    """A job whose attempt is gone, and the lease by which it was taken over."""

    job_id: str
    name: str
    lease: str
    #: The image that its container is of; empty for a process.
    image: str


def new_token() -> str:
    """Return the token of a new lease."""
    return uuid4().hex


def check(tx: Connection, job_id: str, lease: str) -> None:
    """Make sure that a lease is still the job's; it stays so until the transaction ends.

    Raises:
        StaleLeaseError: it is not.
    """
    if tx.scalar(_LEASE_OF, {"job_id": job_id}) != lease:
        raise StaleLeaseError(
            f"job {job_id} is no longer this attempt's: another has its lease, or it was ended"
        )


def renew(tx: Connection, leases: Sequence[str], at: datetime) -> set[str]:
    """Let leases last from now on, and return those that are still held."""
    renewed = tx.scalars(_RENEW, {"leases": leases, "new_end": at + LEASE})
    return {lease for lease in renewed if lease is not None}


def hold(tx: Connection, job_id: str, lease: str, at: datetime) -> None:
    """Renew a lease, so that nobody takes the job over during what follows.

    Raises:
        StaleLeaseError: it is no longer the job's.
    """
    check(tx, job_id, lease)
    renew(tx, [lease], at)


def take_over(
    tx: Connection, at: datetime, *, but: Collection[str] = (), all_held: bool = False
) -> list[Lost]:
    """Give every job whose lease has run out a new one, which fences the old attempt off.

    `but` names the jobs of whoever asks; `all_held` takes every job, whatever its lease says.
    """
    query = select(jobs.c.id, jobs.c.name, jobs.c.lease, jobs.c.image).where(_held_by_others(but))
    if not all_held:
        query = query.where(_end() <= at)
    found = []
    for row in tx.execute(query.order_by(jobs.c.seq)).all():
        lost = Lost(row.id, row.name, new_token(), row.image)
        taken = tx.execute(
            update(jobs)
            .where(jobs.c.id == row.id, jobs.c.lease.is_not_distinct_from(row.lease))
            .values(lease=lost.lease, leased_until=at + LEASE)
        )
        if taken.rowcount == 1:
            found.append(lost)
    return found


def next_end(tx: Connection, but: Collection[str]) -> datetime | None:
    """Return when the first lease runs out of the jobs that are not named; None without any."""
    found: datetime | None = tx.scalar(select(func.min(_end())).where(_held_by_others(but)))
    return found


def _held_by_others(but: Collection[str]) -> ColumnElement[bool]:
    return jobs.c.state.in_(sorted(HELD)) & jobs.c.id.not_in(sorted(but))


def _end() -> ColumnElement[datetime]:
    # A job that was taken before there were leases has none: it has run out long ago.
    return func.coalesce(jobs.c.leased_until, literal(EPOCH, Moment))
