"""What people decide about jobs: the moves that no worker makes."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, literal, select

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import deliveries, events
from dicom_adapter.ledger.jobs import KIND
from dicom_adapter.ledger.queue import move, reset_steps, state_of
from dicom_adapter.ledger.schema import (
    job_files,
    job_inputs,
    job_items,
    job_outputs,
    job_steps,
    jobs,
    superseded_outputs,
)
from dicom_adapter.lifecycle import Action, JobState, target_of
from dicom_adapter.model import ItemState, Job


def cancel(
    tx: Connection, job_id: str, *, at: datetime, actor: str, why: str, only_if_queued: bool = False
) -> JobState:
    """Cancel a job and return its state: cancelled where it waited, cancelling where it runs.

    One that is being cancelled already stays as it is.

    Raises:
        NotFoundError: there is no such job.
        WrongStateError: the job has ended, or has started although it must not have.
    """
    state = state_of(tx, job_id)
    if state is None:
        raise NotFoundError(f"no job has the id '{job_id}'")
    if only_if_queued and state in (JobState.PROCESSING, JobState.CANCELLING):
        raise WrongStateError(
            f"the job is {state}, and only one in_queue was to be cancelled: leave the limit out "
            "to end it"
        )
    if state == JobState.CANCELLING:
        return state
    is_waiting = state == JobState.IN_QUEUE
    values: dict[str, Any] = {"cancelled_from": state}
    move(
        tx,
        job_id,
        Action.CANCEL,
        at=at,
        item=ItemState.CANCELLED if is_waiting else ItemState.CANCELLING,
        values={**values, "finished_at": at} if is_waiting else values,
        actor=actor,
        why=why,
    )
    return JobState.CANCELLED if is_waiting else JobState.CANCELLING


def invalidate(tx: Connection, job_id: str, *, at: datetime, actor: str, why: str) -> None:
    """Declare the outputs of a finished job wrong.

    Raises:
        NotFoundError: there is no such job.
        WrongStateError: it is not finished.
    """
    move(
        tx,
        job_id,
        Action.INVALIDATE,
        at=at,
        item=ItemState.FINISHED,
        values={},
        actor=actor,
        why=why,
    )


def remove(tx: Connection, job_id: str, *, at: datetime, actor: str, why: str) -> None:
    """Delete the record of a job that has ended; its events stay.

    Raises:
        NotFoundError: there is no such job.
        WrongStateError: it has not ended.
    """
    query = select(*jobs.c["state", "project"]).where(jobs.c.id == job_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"no job has the id '{job_id}'")
    state = JobState(row.state)
    target_of(state, Action.DELETE)
    deliveries.remember(tx, job_id)
    items = select(job_items.c.id).where(job_items.c.job_id == job_id)
    for table in (job_files, job_inputs):
        tx.execute(delete(table).where(table.c.item_id.in_(items)))
    for table in (job_items, job_steps, job_outputs, superseded_outputs):
        tx.execute(delete(table).where(table.c.job_id == job_id))
    tx.execute(delete(jobs).where(jobs.c.id == job_id, jobs.c.state == state))
    events.add(
        tx,
        KIND,
        job_id,
        Action.DELETE,
        source=state,
        target="",
        at=at,
        actor=actor,
        reason=why,
        project=row.project,
    )


def retry(tx: Connection, job: Job, *, at: datetime, actor: str, why: str) -> None:
    """Put a job that has ended back into the queue, as it was made; its outputs are superseded.

    Raises:
        WrongStateError: it has not ended, is invalidated, or has been moved meanwhile.
    """
    move(
        tx,
        job.id,
        Action.RETRY,
        at=at,
        item=ItemState.IN_QUEUE,
        values={
            "queued_at": at,
            "started_at": None,
            "finished_at": None,
            "exit_code": None,
            "error": "",
            "cancelled_from": None,
            "retried": 0,
            "ready_at": None,
            "outputs_reclaimed_at": None,
            "logs_reclaimed_at": None,
            "cpu_seconds": None,
            "max_rss_bytes": None,
            "wall_seconds": None,
        },
        actor=actor,
        why=why,
    )
    reset_steps(tx, job.id)
    columns = ("job_id", "path", "size", "sha256")
    before = select(*job_outputs.c[columns], literal(job.attempts)).where(
        job_outputs.c.job_id == job.id
    )
    tx.execute(insert(superseded_outputs).from_select([*columns, "attempt"], before))
    tx.execute(delete(job_outputs).where(job_outputs.c.job_id == job.id))
