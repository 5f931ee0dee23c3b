"""Queries about jobs: the job table is the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, insert, select, update

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import events
from dicom_adapter.ledger.schema import (
    job_files,
    job_inputs,
    job_items,
    job_outputs,
    job_steps,
    jobs,
)
from dicom_adapter.lifecycle import Action, JobState, target_of
from dicom_adapter.model import (
    InputFile,
    InputSummary,
    ItemState,
    Job,
    JobInput,
    JobItem,
    JobOutput,
    JobStep,
    Priority,
    Resources,
    ResourceUse,
    StepState,
    numbered_name,
)

KIND = "job"


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; an empty field lets every job through."""

    states: tuple[JobState, ...] = ()
    pipeline: str = ""
    ae_title: str = ""
    name: str = ""


def add(
    tx: Connection, job: Job, inputs: Sequence[JobInput], request_id: str, request_sha256: str
) -> Job:
    """Write a new job; its name gets a number behind it where it is taken."""
    name, number = job.name, 1
    while tx.scalar(select(jobs.c.seq).where(jobs.c.name == name)) is not None:
        number += 1
        name = numbered_name(job.name, number)
    tx.execute(
        insert(jobs).values(
            id=job.id,
            name=name,
            request_id=request_id,
            request_sha256=request_sha256,
            project=job.project,
            pipeline=job.pipeline,
            pipeline_version=job.pipeline_version,
            command=list(job.command),
            timeout=job.timeout,
            state=job.state,
            priority=job.priority,
            ae_title=job.ae_title,
            instances=job.instances,
            arguments=dict(job.arguments),
            cpus=job.requested.cpus,
            memory=job.requested.memory,
            gpus=job.requested.gpus,
            created_at=job.created_at,
        )
    )
    _add_item(tx, job, inputs)
    for position, step in enumerate(job.steps):
        tx.execute(
            insert(job_steps).values(
                job_id=job.id,
                position=position,
                name=step.name,
                state=step.state,
                progress=step.progress,
            )
        )
    events.add(
        tx,
        KIND,
        job.id,
        Action.CREATE,
        source="",
        target=job.state,
        at=job.created_at,
        actor=job.ae_title or "client",
    )
    return get(tx, job.id)


def _add_item(tx: Connection, job: Job, inputs: Sequence[JobInput]) -> None:
    (item,) = job.items
    tx.execute(insert(job_items).values(id=item.id, job_id=job.id, position=0, state=item.state))
    for position, series in enumerate(inputs):
        tx.execute(
            insert(job_inputs).values(
                item_id=item.id,
                position=position,
                study=series.study,
                series=series.series,
                range=series.range,
                instances=len(series.files),
            )
        )
        tx.execute(
            insert(job_files),
            [
                {
                    "item_id": item.id,
                    "input_position": position,
                    "position": index,
                    "instance_id": file.instance_id,
                    "sop_instance_uid": file.sop_instance_uid,
                    "sha256": file.sha256,
                }
                for index, file in enumerate(series.files)
            ],
        )


def of_request(tx: Connection, request_id: str) -> tuple[Job, str] | None:
    """Return the job that a request id made, with the sha256 of that request."""
    row = tx.execute(
        select(jobs.c.id, jobs.c.request_sha256).where(jobs.c.request_id == request_id)
    ).one_or_none()
    return None if row is None else (get(tx, row.id), row.request_sha256)


def get(tx: Connection, id_or_name: str) -> Job:
    """Return a job by its id or its name.

    Raises:
        NotFoundError: there is none.
    """
    found = _jobs(tx, select(jobs).where((jobs.c.id == id_or_name) | (jobs.c.name == id_or_name)))
    if not found:
        raise NotFoundError(f"no job has the id or name '{id_or_name}'")
    return found[0]


def listed(
    tx: Connection, wanted: JobFilter, limit: int, before: int | None = None
) -> tuple[list[Job], int | None]:
    """Return a page of jobs, newest first, and where the next page begins (None: there is none)."""
    query = select(jobs).order_by(jobs.c.seq.desc()).limit(limit + 1)
    if wanted.states:
        query = query.where(jobs.c.state.in_(wanted.states))
    for column in ("pipeline", "ae_title", "name"):
        if value := getattr(wanted, column):
            query = query.where(jobs.c[column] == value)
    if before is not None:
        query = query.where(jobs.c.seq < before)
    rows = tx.execute(query).mappings().all()
    page = _with_parts(tx, rows[:limit])
    return page, rows[limit - 1]["seq"] if len(rows) > limit else None


def counts(tx: Connection) -> dict[str, int]:
    """Return how many jobs are in each state."""
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    return {row[0]: row[1] for row in tx.execute(query)}


def inputs_of(tx: Connection, job_id: str) -> tuple[JobInput, ...]:
    """Return the inputs of a job, in order, with their files."""
    rows = tx.execute(
        select(
            job_inputs, job_files.c.instance_id, job_files.c.sop_instance_uid, job_files.c.sha256
        )
        .join(job_items, job_items.c.id == job_inputs.c.item_id)
        .join(
            job_files,
            (job_files.c.item_id == job_inputs.c.item_id)
            & (job_files.c.input_position == job_inputs.c.position),
        )
        .where(job_items.c.job_id == job_id)
        .order_by(job_inputs.c.position, job_files.c.position)
    ).all()
    found: dict[int, tuple[Any, list[InputFile]]] = {}
    for row in rows:
        found.setdefault(row.position, (row, []))[1].append(
            InputFile(row.instance_id, row.sha256, row.sop_instance_uid)
        )
    return tuple(
        JobInput(row.study, row.series, row.range, tuple(files)) for row, files in found.values()
    )


def claim_next(tx: Connection, free: Resources, total: Resources, at: datetime) -> Job | None:
    """Take the first job of the queue if it fits into what is free.

    The order is priority, then registration. The first job that the machine can run at all is
    waited for: a small job behind it does not overtake it, so a big one never starves.
    """
    first = tx.execute(
        select(jobs.c.id, jobs.c.cpus, jobs.c.memory, jobs.c.gpus)
        .where(
            jobs.c.state == JobState.IN_QUEUE,
            jobs.c.cpus <= total.cpus,
            jobs.c.memory <= total.memory,
            jobs.c.gpus <= total.gpus,
        )
        .order_by(jobs.c.priority.desc(), jobs.c.seq)
        .limit(1)
    ).one_or_none()
    if first is None or not Resources(first.cpus, first.memory, first.gpus).fits(free):
        return None
    move(
        tx,
        first.id,
        Action.CLAIM,
        at=at,
        item=ItemState.PROCESSING,
        values={"started_at": at, "attempts": jobs.c.attempts + 1, "exit_code": None, "error": ""},
    )
    _reset_steps(tx, first.id)
    return get(tx, first.id)


def move(
    tx: Connection,
    job_id: str,
    action: Action,
    *,
    at: datetime,
    item: ItemState,
    values: Mapping[str, Any],
    reason: str = "",
    actor: str = "system",
) -> None:
    """Move a job by the table of legal moves: one conditional UPDATE and one event.

    Raises:
        WrongStateError: the job is in a state where the action is not legal.
    """
    source = tx.scalar(select(jobs.c.state).where(jobs.c.id == job_id))
    target = target_of(JobState(source) if source else None, action)
    moved = tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == source)
        .values(state=target, reason=reason, **values)
    )
    if moved.rowcount != 1:
        raise WrongStateError(f"job {job_id} left the state {source} meanwhile")
    tx.execute(update(job_items).where(job_items.c.job_id == job_id).values(state=item))
    events.add(
        tx,
        KIND,
        job_id,
        action,
        source=source or "",
        target=target or "",
        at=at,
        actor=actor,
        reason=reason,
    )


def processing(tx: Connection) -> list[str]:
    """Return the ids of the jobs that are being processed, as far as the ledger knows."""
    return list(tx.scalars(select(jobs.c.id).where(jobs.c.state == JobState.PROCESSING)))


def set_step(tx: Connection, job_id: str, name: str, progress: float) -> bool:
    """Note a step's progress, 0 to 1; the steps before it are done; False for an unknown step."""
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


def finish_steps(tx: Connection, job_id: str) -> None:
    """Note that every step is done."""
    tx.execute(
        update(job_steps)
        .where(job_steps.c.job_id == job_id)
        .values(state=StepState.DONE, progress=1.0)
    )


def _reset_steps(tx: Connection, job_id: str) -> None:
    tx.execute(
        update(job_steps)
        .where(job_steps.c.job_id == job_id)
        .values(state=StepState.WAITING, progress=0.0)
    )


def add_outputs(tx: Connection, job_id: str, outputs: Sequence[JobOutput]) -> None:
    """Write what a job produced, in the transaction that finishes it."""
    for output in outputs:
        tx.execute(
            insert(job_outputs).values(
                job_id=job_id, path=output.path, size=output.size, sha256=output.sha256
            )
        )


def ended_before(tx: Connection, part: str, before: datetime, limit: int) -> list[str]:
    """Return the ids of jobs that ended before a time and whose part is not reclaimed yet.

    `part` is inputs, outputs or logs.
    """
    query = (
        select(jobs.c.id)
        .where(jobs.c.finished_at <= before, jobs.c[f"{part}_reclaimed_at"].is_(None))
        .order_by(jobs.c.finished_at)
        .limit(limit)
    )
    return list(tx.scalars(query))


def next_end(tx: Connection, part: str) -> datetime | None:
    """Return when the oldest ended job ended whose part is not reclaimed yet."""
    found: datetime | None = tx.scalar(
        select(func.min(jobs.c.finished_at)).where(jobs.c[f"{part}_reclaimed_at"].is_(None))
    )
    return found


def note_reclaimed(tx: Connection, part: str, ids: Sequence[str], at: datetime) -> None:
    """Note that a part of ended jobs is gone."""
    tx.execute(update(jobs).where(jobs.c.id.in_(ids)).values({f"{part}_reclaimed_at": at}))


def known(tx: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that are jobs."""
    return set(tx.scalars(select(jobs.c.id).where(jobs.c.id.in_(ids))))


def _jobs(tx: Connection, query: Select[Any]) -> list[Job]:
    return _with_parts(tx, tx.execute(query).mappings().all())


def _with_parts(tx: Connection, rows: Sequence[RowMapping]) -> list[Job]:
    ids = [row["id"] for row in rows]
    items = _items(tx, ids)
    steps = _by_job(tx, select(job_steps).where(job_steps.c.job_id.in_(ids)), job_steps.c.position)
    outputs = _by_job(
        tx, select(job_outputs).where(job_outputs.c.job_id.in_(ids)), job_outputs.c.path
    )
    return [
        _job(
            row,
            items.get(row["id"], ()),
            tuple(
                JobStep(step["name"], StepState(step["state"]), step["progress"])
                for step in steps.get(row["id"], ())
            ),
            tuple(
                JobOutput(output["path"], output["size"], output["sha256"])
                for output in outputs.get(row["id"], ())
            ),
        )
        for row in rows
    ]


def _by_job(tx: Connection, query: Select[Any], order: Any) -> dict[str, list[RowMapping]]:  # noqa: ANN401 - a column
    found: dict[str, list[RowMapping]] = {}
    for row in tx.execute(query.order_by(order)).mappings():
        found.setdefault(row["job_id"], []).append(row)
    return found


def _items(tx: Connection, job_ids: Sequence[str]) -> dict[str, tuple[JobItem, ...]]:
    query = (
        select(job_items, job_inputs.c.study, job_inputs.c.series, job_inputs.c.range)
        .add_columns(job_inputs.c.instances)
        .join(job_inputs, job_inputs.c.item_id == job_items.c.id)
        .where(job_items.c.job_id.in_(job_ids))
        .order_by(job_items.c.position, job_inputs.c.position)
    )
    inputs: dict[str, list[InputSummary]] = {}
    item_rows: dict[str, RowMapping] = {}
    for row in tx.execute(query).mappings():
        item_rows.setdefault(row["id"], row)
        inputs.setdefault(row["id"], []).append(
            InputSummary(row["study"], row["series"], row["range"], row["instances"])
        )
    found: dict[str, tuple[JobItem, ...]] = {}
    for item_id, row in item_rows.items():
        item = JobItem(item_id, ItemState(row["state"]), tuple(inputs[item_id]))
        found[row["job_id"]] = (*found.get(row["job_id"], ()), item)
    return found


def _job(
    row: RowMapping,
    items: tuple[JobItem, ...],
    steps: tuple[JobStep, ...],
    outputs: tuple[JobOutput, ...],
) -> Job:
    used = None
    if row["wall_seconds"] is not None:
        used = ResourceUse(row["cpu_seconds"], row["max_rss_bytes"], row["wall_seconds"])
    parts = ("inputs", "outputs", "logs")
    plain = (
        "id", "name", "project", "pipeline", "pipeline_version", "reason", "ae_title",
        "instances", "created_at", "started_at", "finished_at", "arguments", "timeout",
        "attempts", "exit_code", "error",
    )  # fmt: skip
    return Job(
        **{name: row[name] for name in plain},
        state=JobState(row["state"]),
        priority=Priority(row["priority"]),
        command=tuple(row["command"]),
        requested=Resources(row["cpus"], row["memory"], row["gpus"]),
        used=used,
        items=items,
        steps=steps,
        outputs=outputs,
        reclaimed={
            part: row[f"{part}_reclaimed_at"]
            for part in parts
            if row[f"{part}_reclaimed_at"] is not None
        },
    )
