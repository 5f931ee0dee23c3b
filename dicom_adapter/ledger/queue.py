"""Queries that make and move jobs: the job table is the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import events, items, leases
from dicom_adapter.ledger.jobs import KIND, get, run_rules
from dicom_adapter.ledger.leases import LEASE, Claim
from dicom_adapter.ledger.schema import (
    job_outputs,
    job_steps,
    jobs,
)
from dicom_adapter.lifecycle import Action, JobState, Phase, Reason, target_of
from dicom_adapter.model import (
    Job,
    JobInput,
    JobOutput,
    RunRules,
    StepState,
    suffixed_name,
)

# The highest number that is tried behind a name that is taken.
HIGHEST_NUMBER = 20

# What every job that runs needs several times: made once, each costs a quarter.
_OF_JOB = jobs.c.id == bindparam("job_id")
_MOVED = select(*jobs.c["state", "project", "rules"]).where(_OF_JOB)
_STATE = select(jobs.c.state).where(_OF_JOB)
_SET_PHASE = (
    update(jobs)
    .where(_OF_JOB, jobs.c.lease == bindparam("held"))
    .values(phase=bindparam("new_phase"))
)
_SET_STEPS = (
    update(job_steps)
    .where(job_steps.c.job_id == bindparam("of"))
    .values(state=bindparam("new_state"), progress=bindparam("new_progress"))
)


@dataclass(frozen=True)
class Origin:
    """What a job was made of, and by whom; the same request makes no second one."""

    request_id: str
    request_sha256: str
    actor: str
    why: str = ""


def add(
    tx: Connection,
    job: Job,
    inputs: Sequence[Sequence[JobInput]],
    origin: Origin,
    inputs_sha256: str = "",
) -> Job:
    """Write a new job with the inputs of its items; a name that is taken gets a number."""
    tx.execute(
        insert(jobs),
        {
            "id": job.id,
            "name": _free_name(tx, job),
            "request_id": origin.request_id,
            "request_sha256": origin.request_sha256,
            "inputs_sha256": inputs_sha256,
            "project": job.project,
            "pipeline": job.pipeline,
            "pipeline_version": job.pipeline_version,
            "command": list(job.command),
            "image": job.image,
            "image_id": job.image_id,
            "timeout": job.timeout,
            "state": job.state,
            "priority": job.priority,
            "ae_title": job.ae_title,
            "instances": job.instances,
            "arguments": dict(job.arguments),
            "cancel_policy": job.cancel_policy,
            "rules": asdict(job.rules),
            "expires_at": job.rules.expiry(job.created_at),
            "cpus": job.requested.cpus,
            "memory": job.requested.memory,
            "gpus": job.requested.gpus,
            "created_at": job.created_at,
            "queued_at": job.created_at,
            "supersedes": job.supersedes,
            "rerun_of": job.rerun_of,
        },
    )
    items.add(tx, job.id, job.items, inputs)
    _add_steps(tx, job)
    events.add(
        tx,
        KIND,
        job.id,
        Action.CREATE,
        source="",
        target=job.state,
        at=job.created_at,
        actor=origin.actor,
        reason=origin.why,
        project=job.project,
    )
    return get(tx, job.id)


def refuse(tx: Connection, job_id: str, unmet: Sequence[str], *, at: datetime) -> Job:
    """Fail a job that was just made, and must never run; return it as it is then."""
    error = f"its inputs are not what the pipeline requires: {'; '.join(unmet)}"
    move(
        tx,
        job_id,
        Action.EXPIRE,
        at=at,
        values={"finished_at": at, "error": error},
        reason=Reason.INPUT_ERROR,
    )
    return get(tx, job_id)


def _free_name(tx: Connection, job: Job) -> str:
    numbered = [suffixed_name(job.name, str(number)) for number in range(2, HIGHEST_NUMBER + 1)]
    names = [job.name, *numbered]
    taken = set(tx.scalars(select(jobs.c.name).where(jobs.c.name.in_(names))))
    # A client that always sends the same name: looking for a number would take ever longer.
    last = suffixed_name(job.name, job.id[:16])
    return next((name for name in names if name not in taken), last)


def _add_steps(tx: Connection, job: Job) -> None:
    if job.steps:
        tx.execute(
            insert(job_steps),
            [
                {
                    "job_id": job.id,
                    "position": position,
                    "name": step.name,
                    "state": step.state,
                    "progress": step.progress,
                }
                for position, step in enumerate(job.steps)
            ],
        )


def claim(tx: Connection, job_id: str, at: datetime) -> Claim:
    """Take a job that waits, with a lease of its own, and begin its next item; see `turns`.

    Raises:
        NotFoundError: there is no such job.
        WrongStateError: it does not wait any more.
    """
    lease = leases.new_token()
    move(
        tx,
        job_id,
        Action.CLAIM,
        at=at,
        values={
            "started_at": at,
            "attempts": jobs.c.attempts + 1,
            "exit_code": None,
            "error": "",
            "cancelled_from": None,
            "lease": lease,
            "leased_until": at + LEASE,
        },
    )
    reset_steps(tx, job_id)
    item = items.begin_next(tx, job_id, at)
    if item is None:
        # A job that none is left of to wait is cancelled with the last of them.
        raise RuntimeError(f"job {job_id} waits, and none of its items does")
    return Claim(get(tx, job_id), item, lease)


def move(
    tx: Connection,
    job_id: str,
    action: Action,
    *,
    at: datetime,
    values: Mapping[str, Any],
    reason: str = "",
    why: str = "",
    actor: str = "system",
    lease: str | None = None,
) -> None:
    """Move a job by the table of legal moves: one conditional UPDATE and one event.

    The job has the reason's code; the event says why in a person's words, where there are any. An
    attempt names its lease, and moves the job only while that is the job's; people name none.

    Raises:
        NotFoundError: there is no such job.
        StaleLeaseError: the lease is not the job's any more.
        WrongStateError: the job is in a state where the action is not legal.
    """
    row = tx.execute(_MOVED, {"job_id": job_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"no job has the id '{job_id}'")
    source: str = row.state
    still = [jobs.c.id == job_id, jobs.c.state == source]
    if lease is not None:
        leases.check(tx, job_id, lease)
        still.append(jobs.c.lease == lease)
    target = target_of(JobState(source), action)
    arrival = _arrival(target, run_rules(row.rules), at)
    moved = tx.execute(
        update(jobs).where(*still).values({"state": target, "reason": reason, **arrival, **values})
    )
    if moved.rowcount != 1:
        raise WrongStateError(f"job {job_id} left the state {source} meanwhile")
    items.go(tx, job_id, action, at)
    events.add(
        tx,
        KIND,
        job_id,
        action,
        source=source,
        target=target or "",
        at=at,
        actor=actor,
        reason=why or reason,
        project=row.project,
    )


def _arrival(target: JobState | None, rules: RunRules, at: datetime) -> dict[str, Any]:
    """Return what every job's row says that comes into a state, from wherever it comes."""
    values: dict[str, Any] = {}
    if target not in leases.HELD:
        values |= {"lease": None, "leased_until": None, "phase": None}
    if target == JobState.IN_QUEUE:
        values["expires_at"] = rules.expiry(at)
    if target == JobState.PROCESSING:
        values["phase"] = Phase.PREPARING
    return values


def put_back(tx: Connection, job_id: str, *, at: datetime, lease: str, reason: str) -> JobState:
    """Put a job whose attempt did not end back into the queue; one that was to end is cancelled.

    Returns where it is now.

    Raises:
        StaleLeaseError: the lease is not the job's any more.
    """
    if state_of(tx, job_id) == JobState.CANCELLING:
        move(
            tx,
            job_id,
            Action.STOP,
            at=at,
            values={"finished_at": at},
            lease=lease,
        )
        return JobState.CANCELLED
    move(
        tx,
        job_id,
        Action.REQUEUE,
        at=at,
        values={"started_at": None},
        reason=reason,
        lease=lease,
    )
    return JobState.IN_QUEUE


def state_of(tx: Connection, job_id: str) -> JobState | None:
    """Return the state of a job; None when there is no such job."""
    state = tx.scalar(_STATE, {"job_id": job_id})
    return None if state is None else JobState(state)


def set_phase(tx: Connection, job_id: str, phase: Phase, *, lease: str) -> None:
    """Note how far a job's attempt is.

    Raises:
        StaleLeaseError: the lease is not the job's any more.
    """
    leases.check(tx, job_id, lease)
    tx.execute(_SET_PHASE, {"job_id": job_id, "held": lease, "new_phase": phase})


def set_step(tx: Connection, job_id: str, name: str, progress: float, *, lease: str) -> bool:
    """Note a step's progress, 0 to 1; the steps before it are done; False for an unknown step.

    Raises:
        StaleLeaseError: the lease is not the job's any more.
    """
    leases.check(tx, job_id, lease)
    position = tx.scalar(
        select(job_steps.c.position).where(job_steps.c.job_id == job_id, job_steps.c.name == name)
    )
    if position is None:
        return False
    before = (job_steps.c.job_id == job_id) & (job_steps.c.position < position)
    tx.execute(update(job_steps).where(before).values(state=StepState.DONE, progress=1.0))
    state = StepState.DONE if progress >= 1 else StepState.RUNNING
    tx.execute(
        update(job_steps)
        .where(job_steps.c.job_id == job_id, job_steps.c.position == position)
        .values(state=state, progress=progress)
    )
    return True


def finish_steps(tx: Connection, job_id: str, *, lease: str) -> None:
    """Note that every step is done.

    Raises:
        StaleLeaseError: the lease is not the job's any more.
    """
    leases.check(tx, job_id, lease)
    tx.execute(_SET_STEPS, {"of": job_id, "new_state": StepState.DONE, "new_progress": 1.0})


def reset_steps(tx: Connection, job_id: str) -> None:
    """Note that no step has begun."""
    tx.execute(_SET_STEPS, {"of": job_id, "new_state": StepState.WAITING, "new_progress": 0.0})


def add_outputs(tx: Connection, job_id: str, outputs: Sequence[JobOutput], *, lease: str) -> None:
    """Write what a job produced, in the transaction that finishes it.

    Raises:
        StaleLeaseError: the lease is not the job's any more.
    """
    leases.check(tx, job_id, lease)
    if outputs:
        tx.execute(
            insert(job_outputs),
            [
                {
                    "job_id": job_id,
                    "path": output.path,
                    "size": output.size,
                    "sha256": output.sha256,
                }
                for output in outputs
            ],
        )
