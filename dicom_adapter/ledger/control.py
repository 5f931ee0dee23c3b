"""What people decide about jobs: the moves that no worker makes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, literal, select

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import deliveries, events, items
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
from dicom_adapter.lifecycle import ENDED_ITEM, Action, ItemState, JobState, target_of
from dicom_adapter.model import Job, JobItem

#: What the trail says of items that are cancelled on their own; the job itself does not move.
CANCEL_ITEMS = "cancel-items"


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
        values={**values, "finished_at": at} if is_waiting else values,
        actor=actor,
        why=why,
    )
    return JobState.CANCELLED if is_waiting else JobState.CANCELLING


def cancel_items(
    tx: Connection, job: Job, chosen: Sequence[JobItem], *, at: datetime, actor: str, why: str
) -> list[str]:
    """Cancel items of a job, and return those that run, by their ids.

    A job in the queue none of whose items is left to wait is cancelled itself.

    Raises:
        WrongStateError: one of them has ended.
    """
    running = []
    for item in chosen:
        state = items.cancel(tx, item.id, at)
        if state in (ItemState.FINISHED, ItemState.FAILED):
            raise WrongStateError(f"item {item.number} of {job.name} has ended: it is {state}")
        if state == ItemState.CANCELLING:
            running.append(item.id)
    stands = state_of(tx, job.id) or job.state
    numbers = ", ".join(str(item.number) for item in chosen)
    events.add(
        tx,
        KIND,
        job.id,
        CANCEL_ITEMS,
        source=stands,
        target=stands,
        at=at,
        actor=actor,
        reason=f"items {numbers}{f': {why}' if why else ''}",
        project=job.project,
    )
    if stands == JobState.IN_QUEUE and ENDED_ITEM.issuperset(items.summary(tx, job.id).states):
        cancel(tx, job.id, at=at, actor=actor, why="all of its items are cancelled or have ended")
    return running


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
    own = select(job_items.c.id).where(job_items.c.job_id == job_id)
    for table in (job_files, job_inputs):
        tx.execute(delete(table).where(table.c.item_id.in_(own)))
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


def retry(
    tx: Connection, job: Job, chosen: Sequence[JobItem], *, at: datetime, actor: str, why: str
) -> None:
    """Put a job that has ended back into the queue, to run items again; the others stay.

    The outputs that these have are superseded.

    Raises:
        WrongStateError: it has not ended, is invalidated, or has been moved meanwhile.
    """
    move(
        tx,
        job.id,
        Action.RETRY,
        at=at,
        values={
            "queued_at": at,
            "started_at": None,
            "finished_at": None,
            "exit_code": None,
            "error": "",
            "cancelled_from": None,
            "retried": 0,
            "ready_at": None,
            **({"outputs_reclaimed_at": None} if len(chosen) == len(job.items) else {}),
            "logs_reclaimed_at": None,
            "cpu_seconds": None,
            "max_rss_bytes": None,
            "wall_seconds": None,
        },
        actor=actor,
        why=why,
    )
    reset_steps(tx, job.id)
    items.reset(tx, [item.id for item in chosen])
    for item in chosen:
        _supersede(tx, job, item)


def _supersede(tx: Connection, job: Job, item: JobItem) -> None:
    of_it = job_outputs.c.job_id == job.id
    if len(job.items) > 1:
        of_it &= job_outputs.c.path.startswith(f"{item.number:04d}/", autoescape=True)
    columns = ("job_id", "path", "size", "sha256")
    before = select(*job_outputs.c[columns], literal(job.attempts)).where(of_it)
    tx.execute(insert(superseded_outputs).from_select([*columns, "attempt"], before))
    tx.execute(delete(job_outputs).where(of_it))
