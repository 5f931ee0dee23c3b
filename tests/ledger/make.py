"""Rows for the ledger, with every value that a test does not care about filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from dicom_adapter.ledger import Ledger, groups, instances, queue, stock, submissions, turns
from dicom_adapter.ledger.groups import Joining
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.ledger.submissions import Submitting
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import (
    InputFile,
    InstanceState,
    ItemState,
    Job,
    JobInput,
    JobItem,
    Priority,
    Received,
    Resend,
    Resources,
    StoredInstance,
    Submission,
    SubmissionState,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIB = 1024**2


def after(seconds: float) -> datetime:
    """Return the time so many seconds after the beginning of the test."""
    return NOW + timedelta(seconds=seconds)


def locate(instance_id: str) -> Path:
    """Return where the file of an instance would lie."""
    return Path("/spool", instance_id)


def instance(**values: Any) -> StoredInstance:  # noqa: ANN401 - the fields of an instance
    """Return an instance that is not in any ledger yet."""
    instance_id = values.pop("id", uuid4().hex)
    whole = StoredInstance(
        id=instance_id,
        ae_title="TEST",
        association=1,
        calling_ae_title="SCU",
        source_address="127.0.0.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.{uuid4().int >> 40}",
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=1,
        sha256="0" * 64,
        size=1000,
        received_at=NOW,
        path=locate(instance_id),
    )
    return replace(whole, **values)


def add_instance(tx: Connection, **values: Any) -> StoredInstance:  # noqa: ANN401 - its fields
    """Record an instance as just received."""
    made = instance(**values)
    instances.record(tx, [Received(made)])
    return made


def again(tx: Connection, made: StoredInstance, resend: Resend = Resend.PROCESS) -> str:
    """Tell what would come of these bytes if they were sent once more: new, due or nothing."""
    later = replace(made, id=uuid4().hex, received_at=NOW + timedelta(hours=1))
    with tx.begin_nested() as trial:
        (told,) = instances.record(tx, [Received(later, resend=resend)])
        due = instances.received(tx, later.ae_title, later.received_at, 10, locate)
        trial.rollback()
    assert told.instance_id == (later.id if told.is_new else made.id)
    if told.is_new:
        return "new"
    times = {instance.id: instance.received_at for instance, _ in due}
    return "due" if times.get(made.id) == later.received_at else "nothing"


def kept(tx: Connection, **values: Any) -> StoredInstance:  # noqa: ANN401 - its fields
    """Record an instance that its processor has taken."""
    made = add_instance(tx, **values)
    instances.handled(tx, [made.id])
    return made


def join(
    tx: Connection, instance: StoredInstance, key: str = "key", max_wait: timedelta | None = None
) -> str:
    """Put an instance into its group, which is due five seconds later; return the group's id."""
    (group,) = groups.join(tx, [Joining(instance, key, timedelta(seconds=5), max_wait)])
    return group


def submission(**values: Any) -> Submission:  # noqa: ANN401 - the fields of a submission
    """Return a pending submission that is not in any ledger yet."""
    whole = Submission(
        id=uuid4().hex,
        ae_title="TEST",
        project="default",
        group_id=None,
        name="test-lung-20260102030405",
        pipeline="lung",
        priority=Priority.NORMAL,
        state=SubmissionState.PENDING,
        instances=0,
        attempts=0,
        created_at=NOW,
        ready_at=NOW,
        settled_at=None,
        error="",
        job_id=None,
        supersedes=None,
    )
    return replace(whole, **values)


def submit(
    tx: Connection,
    ids: Sequence[str],
    supersedes: str | None = None,
    **values: Any,  # noqa: ANN401 - its fields
) -> Submission:
    """Record a pending submission of instances."""
    made = submission(**values)
    submissions.add(tx, Submitting(made, ids, supersedes))
    return made


def job(**values: Any) -> Job:  # noqa: ANN401 - the fields of a job
    """Return a job that is not in any ledger yet."""
    whole = Job(
        id=uuid4().hex,
        name=f"job-{uuid4().hex[:8]}",
        project="default",
        pipeline="lung",
        pipeline_version="1",
        state=JobState.IN_QUEUE,
        reason="",
        priority=Priority.NORMAL,
        ae_title="TEST",
        instances=1,
        created_at=NOW,
        started_at=None,
        finished_at=None,
        arguments={},
        command=("true",),
        timeout=None,
        requested=Resources(1, MIB, 0),
        used=None,
        attempts=0,
        exit_code=None,
        error="",
        items=(JobItem(uuid4().hex, 1, ItemState.IN_QUEUE),),
    )
    return replace(whole, **values)


def add_job(tx: Connection, request_id: str = "", **values: Any) -> Job:  # noqa: ANN401 - its fields
    """Put a job of one input into the queue."""
    inputs = [[JobInput("1.2.3", "1.2.3.4", "all", (InputFile("i1", "0" * 64, "1.2.3.5"),))]]
    return queue.add(
        tx, job(**values), inputs, queue.Origin(request_id or uuid4().hex, "digest", "TEST")
    )


def rules(
    total: Resources | None = None,
    max_jobs: int = 1000,
    projects: Mapping[str, turns.Limits] | None = None,
    **pipelines: turns.Limits,
) -> turns.Rules:
    """Return rules for the queue: a machine that holds anything, unless it says otherwise."""
    whole = total or Resources(1000, 1000 * MIB, 1000)
    limits = {turns.Kind("pipeline", name): found for name, found in pipelines.items()}
    limits |= {turns.Kind("project", name): found for name, found in (projects or {}).items()}
    return turns.Rules(whole, max_jobs, timedelta(hours=1), limits)


def claimed(tx: Connection, at: datetime = NOW) -> Claim:
    """Take the next job of the queue; there must be one."""
    job_id = turns.next_turn(tx, rules(), at)
    assert job_id is not None
    return queue.claim(tx, job_id, at)


def lease_of(tx: Connection, job_id: str) -> str:
    """Return the token of a job's lease, empty when nobody holds it."""
    row = tx.exec_driver_sql(f"SELECT lease FROM jobs WHERE id = '{job_id}'").one()  # noqa: S608 - our own id
    return row.lease or ""


def reasons(ledger: Ledger) -> dict[str, int]:
    """Return how many instances are kept for which reason."""
    with ledger.read() as tx:
        return {keeping.reason: keeping.instances for keeping in stock.keeping(tx)}


def reclaimable(ledger: Ledger, at: datetime) -> list[str]:
    """Mark what may go now, as the reclaimer does, and return the ids."""
    with ledger.write() as tx:
        return stock.begin_reclaim(tx, at, 1000)


def state_of(tx: Connection, instance_id: str) -> InstanceState:
    """Return where an instance stands."""
    row = tx.exec_driver_sql(f"SELECT state FROM instances WHERE id = '{instance_id}'").one()  # noqa: S608 - our own id
    return InstanceState(row.state)
