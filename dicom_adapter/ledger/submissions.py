"""Queries about submissions: the outbox between the job processors and the platform."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, insert, select, update

from dicom_adapter.errors import WrongStateError
from dicom_adapter.ledger import events, instances, stock
from dicom_adapter.ledger.schema import submission_instances, submissions
from dicom_adapter.model import OnMismatch, Priority, Submission, SubmissionState

KIND = "submission"
UNSETTLED = (SubmissionState.PENDING, SubmissionState.PARKED)
#: Nothing was made of these, and nothing will be.
FRUITLESS = (SubmissionState.DISCARDED, SubmissionState.SKIPPED)
#: What the audit trail says of a submission that is settled.
_ACTIONS = {
    SubmissionState.ACCEPTED: "accept",
    SubmissionState.DISCARDED: "discard",
    SubmissionState.SKIPPED: "skip",
}


@dataclass(frozen=True)
class Submitting:
    """A submission that is to be written."""

    submission: Submission
    instance_ids: Sequence[str]
    #: The group whose jobs this one takes the place of.
    supersedes: str | None


def add(tx: Connection, submitting: Submitting) -> None:
    """Write a submission before its first call to the platform.

    Raises:
        WrongStateError: some of its instances are no longer kept.
    """
    submission, instance_ids = submitting.submission, submitting.instance_ids
    if gone := stock.gone(tx, instance_ids):
        raise WrongStateError(f"{gone} of the instances are not kept any more")
    tx.execute(
        insert(submissions).values(
            id=submission.id,
            ae_title=submission.ae_title,
            project=submission.project,
            group_id=submission.group_id,
            name=submission.name,
            pipeline=submission.pipeline,
            priority=submission.priority,
            state=submission.state,
            created_at=submission.created_at,
            ready_at=submission.ready_at,
            supersedes=_superseded(tx, submitting),
            on_mismatch=submission.on_mismatch,
        )
    )
    tx.execute(
        insert(submission_instances),
        [
            {"submission_id": submission.id, "position": position, "instance_id": instance_id}
            for position, instance_id in enumerate(instance_ids)
        ],
    )
    instances.hold(tx, submission.id)


def _superseded(tx: Connection, submitting: Submitting) -> str | None:
    """Return the newest submission of that group to the same pipeline."""
    query = select(submissions.c.id).where(
        submissions.c.group_id == submitting.supersedes,
        submissions.c.pipeline == submitting.submission.pipeline,
        submissions.c.state.not_in(FRUITLESS),
    )
    found: str | None = tx.scalar(query.order_by(submissions.c.seq.desc()).limit(1))
    return found


def due(tx: Connection, now: datetime, limit: int) -> list[Submission]:
    """Return the pending submissions that are due, the most urgent first, then the oldest."""
    query = (
        _query()
        .where(submissions.c.state == SubmissionState.PENDING, submissions.c.ready_at <= now)
        .order_by(submissions.c.priority.desc(), submissions.c.seq)
        .limit(limit)
    )
    return [_submission(row) for row in tx.execute(query).mappings()]


def next_ready(tx: Connection) -> datetime | None:
    """Return when the next pending submission is due."""
    found: datetime | None = tx.scalar(
        select(func.min(submissions.c.ready_at)).where(
            submissions.c.state == SubmissionState.PENDING
        )
    )
    return found


def accept(tx: Connection, submission_id: str, job_id: str, at: datetime) -> None:
    """Note that the platform has taken a submission, and free what it held.

    Also when a person has discarded it meanwhile: the job is there, and the state says so.
    """
    _settle(tx, submission_id, SubmissionState.ACCEPTED, at=at, job_id=job_id, error="")


def park(tx: Connection, submission_id: str, error: str, at: datetime) -> None:
    """Note that the platform has refused a submission for good; its files stay."""
    parked = tx.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.state == SubmissionState.PENDING)
        .values(state=SubmissionState.PARKED, error=error, attempts=submissions.c.attempts + 1)
    )
    if not parked.rowcount:
        # A person has discarded it during the call.
        return
    events.add(
        tx,
        KIND,
        submission_id,
        "park",
        source=SubmissionState.PENDING,
        target=SubmissionState.PARKED,
        at=at,
        reason=error,
    )


def skip(tx: Connection, submission_id: str, error: str, at: datetime) -> None:
    """Note that no job is made of a submission, and why, and free what it held."""
    if _state(tx, submission_id) not in UNSETTLED:
        # A person has discarded it during the call.
        return
    _settle(tx, submission_id, SubmissionState.SKIPPED, at=at, why=error, error=error)


def postpone(tx: Connection, submission_id: str, ready_at: datetime, error: str) -> None:
    """Note that the platform did not answer, and when to try again."""
    tx.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.state == SubmissionState.PENDING)
        .values(ready_at=ready_at, error=error, attempts=submissions.c.attempts + 1)
    )


def retry(tx: Connection, submission_id: str, at: datetime, actor: str) -> bool:
    """Make a parked or waiting submission due now; False when it is settled."""
    source = _state(tx, submission_id)
    if source not in UNSETTLED:
        return False
    tx.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.state == source)
        .values(state=SubmissionState.PENDING, ready_at=at, attempts=0)
    )
    events.add(
        tx,
        KIND,
        submission_id,
        "retry",
        source=source,
        target=SubmissionState.PENDING,
        at=at,
        actor=actor,
    )
    return True


def discard(tx: Connection, submission_id: str, at: datetime, actor: str) -> bool:
    """Give a submission up and free what it held; False when it is settled."""
    if _state(tx, submission_id) not in UNSETTLED:
        return False
    _settle(tx, submission_id, SubmissionState.DISCARDED, at=at, actor=actor)
    return True


def listed(tx: Connection, states: Sequence[SubmissionState] = UNSETTLED) -> list[Submission]:
    """Return submissions, oldest first; without `states` those that are not settled."""
    query = _query().where(submissions.c.state.in_(states)).order_by(submissions.c.seq)
    return [_submission(row) for row in tx.execute(query).mappings()]


def _settle(
    tx: Connection,
    submission_id: str,
    target: SubmissionState,
    *,
    at: datetime,
    actor: str = "system",
    why: str = "",
    **values: str,
) -> None:
    source = _state(tx, submission_id)
    tx.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.state == source)
        .values(state=target, settled_at=at, **values)
    )
    instances.release_settled(tx, submission_id, at)
    events.add(
        tx,
        KIND,
        submission_id,
        _ACTIONS[target],
        source=source,
        target=target,
        at=at,
        actor=actor,
        reason=why,
    )


def _state(tx: Connection, submission_id: str) -> str:
    query = select(submissions.c.state).where(submissions.c.id == submission_id)
    return tx.scalar(query) or ""


def _query() -> Select[Any]:
    members = (
        select(func.count())
        .where(submission_instances.c.submission_id == submissions.c.id)
        .scalar_subquery()
    )
    return select(submissions, members.label("instances"))


def _submission(row: RowMapping) -> Submission:
    values = {name: row[name] for name in row if name != "seq"}
    values["priority"] = Priority(values["priority"])
    values["state"] = SubmissionState(values["state"])
    values["on_mismatch"] = OnMismatch(values["on_mismatch"])
    return Submission(**values)
