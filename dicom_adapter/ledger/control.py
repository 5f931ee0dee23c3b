"""What people decide about jobs: the moves that no worker makes."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger.queue import move, state_of
from dicom_adapter.lifecycle import Action, JobState
from dicom_adapter.model import ItemState


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
