"""Queries that show jobs, and those that the reclaimer asks; `queue` has those that change them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    func,
    select,
    update,
)

from dicom_adapter.errors import NotFoundError
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.items import item_of
from dicom_adapter.ledger.schema import (
    job_files,
    job_inputs,
    job_items,
    job_outputs,
    job_steps,
    jobs,
    superseded_outputs,
)
from dicom_adapter.lifecycle import TERMINAL, CancelPolicy, JobState, Phase
from dicom_adapter.model import (
    InputFile,
    InputSummary,
    Job,
    JobInput,
    JobItem,
    JobOutput,
    JobStep,
    Priority,
    Resources,
    ResourceUse,
    Retries,
    RunRules,
    StepState,
)

KIND = "job"
PARTS_PER_PAGE = 50_000

# What is asked for every job that is made and runs: made once, each costs a quarter.
_JOB = select(jobs).where(jobs.c.id == bindparam("job_id"))
_BY_ID, _BY_NAME = (
    select(*jobs.c["id", "project"]).where(column == bindparam("named"))
    for column in (jobs.c.id, jobs.c.name)
)
# No more of them are named.
_MOST_DOUBLES = 10
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_ITEMS = (
    select(job_items, job_inputs.c.study, job_inputs.c.series, job_inputs.c.range)
    .add_columns(job_inputs.c.instances)
    .join(job_inputs, job_inputs.c.item_id == job_items.c.id)
    .where(job_items.c.job_id.in_(_IDS))
    .order_by(job_items.c.position, job_inputs.c.position)
)
_STEPS, _OUTPUTS, _SUPERSEDED = (
    select(table).where(table.c.job_id.in_(_IDS)).order_by(table.c[order])
    for table, order in (
        (job_steps, "position"),
        (job_outputs, "path"),
        (superseded_outputs, "path"),
    )
)
_INPUTS = (
    select(job_inputs, job_files.c.instance_id, job_files.c.sop_instance_uid, job_files.c.sha256)
    .join(job_items, job_items.c.id == job_inputs.c.item_id)
    .join(
        job_files,
        (job_files.c.item_id == job_inputs.c.item_id)
        & (job_files.c.input_position == job_inputs.c.position),
    )
    .where(job_items.c.job_id == bindparam("of"))
    .order_by(job_items.c.position, job_inputs.c.position, job_files.c.position)
)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; an empty field lets every job through."""

    states: tuple[JobState, ...] = ()
    project: str = ""
    pipeline: str = ""
    ae_title: str = ""
    name: str = ""


def of_request(tx: Connection, request_id: str) -> tuple[Job, str] | None:
    """Return the job that a request id made, with the sha256 of that request."""
    row = tx.execute(
        select(jobs.c.id, jobs.c.request_sha256).where(jobs.c.request_id == request_id)
    ).one_or_none()
    return None if row is None else (get(tx, row.id), row.request_sha256)


def doubles(tx: Connection, job: Job, inputs_sha256: str) -> list[tuple[str, str]]:
    """Return the id and name of each job of its project with the same pipeline and inputs.

    Those that brought nothing, or nothing that is valid, are none.
    """
    query = (
        select(jobs.c.id, jobs.c.name)
        .where(
            jobs.c.inputs_sha256 == inputs_sha256,
            jobs.c.pipeline == job.pipeline,
            jobs.c.project == job.project,
            jobs.c.state.not_in([JobState.FAILED, JobState.CANCELLED, JobState.INVALIDATED]),
        )
        .order_by(jobs.c.seq)
        .limit(_MOST_DOUBLES)
    )
    return [(row.id, row.name) for row in tx.execute(query)]


def get(tx: Connection, id_or_name: str, project: str | None = None) -> Job:
    """Return a job by its id or its name; where a project is named, one of it alone.

    Raises:
        NotFoundError: there is none.
    """
    found = tx.execute(_JOB, {"job_id": id_of(tx, id_or_name, project)}).mappings().one()
    return _with_parts(tx, [found])[0]


def id_of(tx: Connection, id_or_name: str, project: str | None = None) -> str:
    """Return the id of a job that is named by it or by its name; see `get`.

    Raises:
        NotFoundError: there is none.
    """
    # The id first: a client may have named its job as another's id.
    for query in (_BY_ID, _BY_NAME):
        found = tx.execute(query, {"named": id_or_name}).one_or_none()
        if found is not None and project in (None, found.project):
            return str(found.id)
    raise NotFoundError(f"no job has the id or name '{id_or_name}'")


def listed(
    tx: Connection, wanted: JobFilter, limit: int, before: int | None = None
) -> tuple[list[Job], int | None]:
    """Return a page of jobs, newest first, and where the next page begins (None: there is none).

    A page is shorter than `limit` where its jobs have very many items and outputs, but has at least
    one job.
    """
    outputs, items = (
        select(func.count()).where(table.c.job_id == jobs.c.id).scalar_subquery()
        for table in (job_outputs, job_items)
    )
    numbers = sorted(_numbers(tx, wanted, limit + 1, before), reverse=True)[: limit + 1]
    query = (
        select(jobs, (outputs + items).label("parts"))
        .where(jobs.c.seq.in_(numbers))
        .order_by(jobs.c.seq.desc())
    )
    rows = tx.execute(query).mappings().all()
    sums = accumulate(row["parts"] for row in rows[:limit])
    # A page must fit into one message of gRPC, and into the memory.
    length = max(1, sum(total <= PARTS_PER_PAGE for total in sums))
    page = _with_parts(tx, rows[:length])
    return page, rows[length - 1]["seq"] if len(rows) > length else None


def _numbers(tx: Connection, wanted: JobFilter, limit: int, before: int | None) -> Iterator[int]:
    """Yield the numbers of the newest jobs that pass, of each state: an index has them in order."""
    query = select(jobs.c.seq).order_by(jobs.c.seq.desc()).limit(limit)
    for column in ("project", "pipeline", "ae_title", "name"):
        if value := getattr(wanted, column):
            query = query.where(jobs.c[column] == value)
    if before is not None:
        query = query.where(jobs.c.seq < before)
    for state in wanted.states or JobState:
        yield from tx.scalars(query.where(jobs.c.state == state))


def counts(tx: Connection) -> dict[str, int]:
    """Return how many jobs are in each state."""
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    return {row[0]: row[1] for row in tx.execute(query)}


def inputs_of(tx: Connection, job_id: str) -> dict[str, tuple[JobInput, ...]]:
    """Return the inputs of each item of a job, by its id, in order, with their files."""
    rows = tx.execute(_INPUTS, {"of": job_id}).all()
    files: dict[tuple[str, int], tuple[Any, list[InputFile]]] = {}
    for row in rows:
        files.setdefault((row.item_id, row.position), (row, []))[1].append(
            InputFile(row.instance_id, row.sha256, row.sop_instance_uid)
        )
    found: dict[str, tuple[JobInput, ...]] = {}
    for row, of_series in files.values():
        series = JobInput(row.study, row.series, row.range, tuple(of_series))
        found[row.item_id] = (*found.get(row.item_id, ()), series)
    return found


def ended_before(tx: Connection, part: str, before: datetime, limit: int) -> list[str]:
    """Return the ids of jobs that ended before a time and whose part is not reclaimed yet.

    `part` is inputs, outputs or logs.
    """
    query = (
        select(jobs.c.id)
        .where(_reclaimable(part), jobs.c.finished_at <= before)
        .order_by(jobs.c.finished_at, jobs.c.seq)
        .limit(limit)
    )
    return list(tx.scalars(query))


def next_end(tx: Connection, part: str) -> datetime | None:
    """Return when the oldest ended job ended whose part is not reclaimed yet."""
    found: datetime | None = tx.scalar(
        select(func.min(jobs.c.finished_at)).where(_reclaimable(part))
    )
    return found


def _reclaimable(part: str) -> ColumnElement[bool]:
    # The state too: a job that was retried keeps the time of its first end, and needs its inputs.
    return and_(jobs.c[f"{part}_reclaimed_at"].is_(None), jobs.c.state.in_(sorted(TERMINAL)))


def note_reclaimed(tx: Connection, part: str, ids: Sequence[str], at: datetime) -> None:
    """Note that a part of ended jobs is gone."""
    tx.execute(update(jobs).where(jobs.c.id.in_(ids)).values({f"{part}_reclaimed_at": at}))


def known(tx: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that are jobs."""
    found: set[str] = set()
    for portion in portions(ids):
        found.update(tx.scalars(select(jobs.c.id).where(jobs.c.id.in_(portion))))
    return found


def with_superseded(tx: Connection) -> list[str]:
    """Return the ids of the jobs that have outputs of attempts before."""
    return list(tx.scalars(select(superseded_outputs.c.job_id).distinct()))


def _with_parts(tx: Connection, rows: Sequence[RowMapping]) -> list[Job]:
    ids = [row["id"] for row in rows]
    names = _names_of(tx, jobs.c.request_id, [row["supersedes"] for row in rows])
    sources = _names_of(tx, jobs.c.id, [row["rerun_of"] for row in rows])
    items = _items(tx, ids)
    steps = _by_job(tx, _STEPS, ids)
    outputs = _by_job(tx, _OUTPUTS, ids)
    before = _by_job(tx, _SUPERSEDED, ids)
    return [
        replace(
            _job(row),
            supersedes=names.get(row["supersedes"], row["supersedes"]),
            rerun_of=sources.get(row["rerun_of"], row["rerun_of"]),
            items=items.get(row["id"], ()),
            steps=tuple(
                JobStep(step["name"], StepState(step["state"]), step["progress"])
                for step in steps.get(row["id"], ())
            ),
            outputs=tuple(map(_output, outputs.get(row["id"], ()))),
            superseded_outputs=_superseded(before.get(row["id"], ())),
        )
        for row in rows
    ]


def _output(row: RowMapping) -> JobOutput:
    return JobOutput(row["path"], row["size"], row["sha256"])


def _superseded(rows: Iterable[RowMapping]) -> dict[int, tuple[JobOutput, ...]]:
    found: dict[int, tuple[JobOutput, ...]] = {}
    for row in rows:
        found[row["attempt"]] = (*found.get(row["attempt"], ()), _output(row))
    return found


def _names_of(
    tx: Connection, column: Column[str], values: Sequence[str | None]
) -> dict[str | None, str]:
    """Return the names of the jobs that have one of the values in a column, by these."""
    wanted = [value for value in values if value is not None]
    if not wanted:
        return {}
    query = select(column, jobs.c.name).where(column.in_(wanted))
    return {row[0]: row[1] for row in tx.execute(query)}


def _by_job(tx: Connection, query: Select[Any], ids: Sequence[str]) -> dict[str, list[RowMapping]]:
    found: dict[str, list[RowMapping]] = {}
    for row in tx.execute(query, {"ids": ids}).mappings():
        found.setdefault(row["job_id"], []).append(row)
    return found


def _items(tx: Connection, job_ids: Sequence[str]) -> dict[str, tuple[JobItem, ...]]:
    inputs: dict[str, list[InputSummary]] = {}
    rows: dict[str, RowMapping] = {}
    for row in tx.execute(_ITEMS, {"ids": job_ids}).mappings():
        rows.setdefault(row["id"], row)
        inputs.setdefault(row["id"], []).append(
            InputSummary(row["study"], row["series"], row["range"], row["instances"])
        )
    found: dict[str, tuple[JobItem, ...]] = {}
    for item_id, row in rows.items():
        item = replace(item_of(row), inputs=tuple(inputs[item_id]))
        found[row["job_id"]] = (*found.get(row["job_id"], ()), item)
    return found


def run_rules(kept: Mapping[str, Any] | None) -> RunRules:
    """Return the rules that a job's row holds."""
    if kept is None:
        return RunRules()
    retries = kept["retries"]
    codes = tuple(retries["exit_codes"])
    return RunRules(**{**kept, "retries": Retries(**{**retries, "exit_codes": codes})})


def _job(row: RowMapping) -> Job:
    """Return what a job's own row says."""
    used = None
    if row["wall_seconds"] is not None:
        used = ResourceUse(row["cpu_seconds"], row["max_rss_bytes"], row["wall_seconds"])
    parts = ("inputs", "outputs", "logs")
    plain = (
        "id", "name", "project", "pipeline", "pipeline_version", "reason", "ae_title",
        "instances", "created_at", "started_at", "finished_at", "arguments", "timeout",
        "attempts", "exit_code", "error", "retried", "image", "image_id",
    )  # fmt: skip
    return Job(
        **{name: row[name] for name in plain},
        state=JobState(row["state"]),
        cancel_policy=CancelPolicy(row["cancel_policy"]),
        cancelled_from=None if row["cancelled_from"] is None else JobState(row["cancelled_from"]),
        rules=run_rules(row["rules"]),
        phase=None if row["phase"] is None else Phase(row["phase"]),
        ready_at=row["ready_at"] if row["state"] == JobState.IN_QUEUE else None,
        priority=Priority(row["priority"]),
        command=tuple(row["command"]),
        requested=Resources(row["cpus"], row["memory"], row["gpus"]),
        used=used,
        reclaimed={
            part: row[f"{part}_reclaimed_at"]
            for part in parts
            if row[f"{part}_reclaimed_at"] is not None
        },
    )
