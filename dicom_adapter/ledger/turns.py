"""Whose turn it is: the order of the queue, and what holds a job back in it.

What runs is read from the ledger too: what a job holds is free with the commit that ends it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    bindparam,
    func,
    select,
    tuple_,
    type_coerce,
)

from dicom_adapter.ledger.columns import MICROSECOND, microseconds
from dicom_adapter.ledger.leases import HELD
from dicom_adapter.ledger.schema import jobs
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import Job, Resources

DAY = timedelta(days=1)
# So many of each line are looked at for one that delays nobody.
LOOK_AHEAD = 100

# In the order of the index.
_WAITING = (
    select(*jobs.c["id", "seq", "project", "pipeline", "priority", "queued_at", "ready_at"])
    .add_columns(jobs.c.cpus, jobs.c.memory, jobs.c.gpus)
    .where(jobs.c.state == JobState.IN_QUEUE)
    .order_by(*jobs.c["project", "pipeline", "priority", "queued_at", "seq"])
)
# Asked whenever a job might start: made once, each costs a quarter.
_FIRST = _WAITING.limit(1)
_NEXT = _WAITING.where(
    tuple_(*jobs.c["project", "pipeline", "priority"])
    > tuple_(bindparam("project"), bindparam("pipeline"), bindparam("priority"))
).limit(1)
_RUNNING = (
    select(jobs.c.pipeline, jobs.c.project, func.count().label("jobs"))
    .add_columns(*(func.sum(column) for column in (jobs.c.cpus, jobs.c.memory, jobs.c.gpus)))
    .where(jobs.c.state.in_(sorted(HELD)))
    .group_by(jobs.c.pipeline, jobs.c.project)
)


@dataclass(frozen=True)
class Limits:
    """How many jobs may run, wait, and start within 24 hours; None: any number."""

    running: int | None = None
    waiting: int | None = None
    daily: int | None = None


@dataclass(frozen=True)
class Kind:
    """Jobs that have limits together: those of a pipeline, or of a project."""

    column: Literal["pipeline", "project"]
    name: str

    def __str__(self) -> str:
        return f"the {self.column} {self.name}"


@dataclass(frozen=True)
class Rules:
    """What the queue goes by.

    Attributes:
        total: What the machine has for jobs.
        max_jobs: How many run at a time.
        ageing: So long a job waits to be worth the next higher priority.
        limits: Of the pipelines and projects that have any.
    """

    total: Resources
    max_jobs: int
    ageing: timedelta
    limits: Mapping[Kind, Limits]

    def of(self, kind: Kind) -> Limits:
        """Return the limits of a kind of jobs."""
        return self.limits.get(kind, Limits())

    def turn(self, queued_at: datetime, priority: int) -> datetime:
        """Return what the queue is ordered by: a step of priority is as much waiting as `ageing`.

        It never changes while a job waits, so nobody is overtaken by those who come much later.
        """
        return queued_at - priority * self.ageing


@dataclass(frozen=True)
class Running:
    """What the jobs hold that run now."""

    count: int
    held: Resources
    #: How many are of each kind.
    of: Mapping[Kind, int]


def running(tx: Connection) -> Running:
    """Return what the jobs hold that run now."""
    rows = tx.execute(_RUNNING).all()
    held = Resources(*(sum(int(row[column]) for row in rows) for column in (3, 4, 5)))
    of: Counter[Kind] = Counter()
    for row in rows:
        of.update(dict.fromkeys(kinds_of(row), row.jobs))
    return Running(sum(row.jobs for row in rows), held, of)


def kinds_of(job: Row[Any] | Job) -> tuple[Kind, Kind]:
    """Return the kinds that a job is of."""
    return Kind("pipeline", job.pipeline), Kind("project", job.project)


def next_turn(
    tx: Connection, rules: Rules, at: datetime, *, but: Collection[str] = ()
) -> str | None:
    """Return the id of the job that may start now; None where nobody may.

    It is the first of the queue. Where that does not fit into what is free yet, it is one behind
    it that leaves all that the first waits for: so a big job never starves behind small ones.
    `but` names jobs whose attempt before this one has not ended here.
    """
    now = running(tx)
    if now.count >= rules.max_jobs:
        return None
    lines = [line for line in _lines(tx) if _held_back(tx, rules, now, line, at) is None]
    heads = [row for line in lines for row in _startable(tx, rules, line, at, but)]
    if not heads:
        return None
    first = _first(rules, heads)
    free = _less(rules.total, now.held)
    if _needs(first).fits(free):
        return str(first.id)
    if now.count + 2 > rules.max_jobs:
        # The last place is the first one's.
        return None
    spare = _spare(free, _needs(first))
    behind = [
        row
        for line in lines
        for row in _of_line(tx, line, LOOK_AHEAD)
        if row.id not in but and _is_ready(row, at) and _needs(row).fits(spare)
    ]
    return str(_first(rules, behind).id) if behind else None


def next_allowance(tx: Connection, rules: Rules, at: datetime) -> datetime | None:
    """Return when the first of those that wait for a daily limit may start a job again."""
    if all(limits.daily is None for limits in rules.limits.values()):
        return None
    waits = {kind for line in _lines(tx) for kind in kinds_of(line)}
    found = [_allowed_at(tx, kind, rules.of(kind).daily, at) for kind in waits]
    return min((moment for moment in found if moment is not None), default=None)


def waiting(tx: Connection, kind: Kind | None = None) -> int:
    """Return how many jobs wait, of a kind or of all."""
    query = select(func.count()).where(jobs.c.state == JobState.IN_QUEUE)
    if kind is not None:
        query = query.where(jobs.c[kind.column] == kind.name)
    return tx.scalar(query) or 0


def before(tx: Connection, rules: Rules, job: Job) -> int:
    """Return how many jobs are before one that waits."""
    own = tx.execute(select(jobs.c.queued_at, jobs.c.seq).where(jobs.c.id == job.id)).one()
    turn = type_coerce(jobs.c.queued_at, BigInteger) - jobs.c.priority * (
        rules.ageing // MICROSECOND
    )
    own_turn = microseconds(rules.turn(own.queued_at, job.priority))
    query = select(func.count()).where(
        jobs.c.state == JobState.IN_QUEUE,
        (turn < own_turn) | ((turn == own_turn) & (jobs.c.seq < own.seq)),
    )
    return tx.scalar(query) or 0


def why_waiting(tx: Connection, rules: Rules, job: Job, at: datetime) -> str:
    """Return what holds a job back beside the jobs before it; empty where nothing does."""
    needs, total = job.requested, rules.total
    if not needs.fits(total):
        lacks = _lacks(needs, total, "has")
        return f"it can never start here: it needs {lacks} for jobs: raise platform.capacity"
    if job.ready_at is not None and job.ready_at > at:
        return (
            f"it runs again at {job.ready_at:%Y-%m-%d %H:%M:%S} UTC, as its pipeline's retries say"
        )
    now = running(tx)
    limited = _held_back(tx, rules, now, job, at)
    if limited is not None:
        return limited
    if now.count >= rules.max_jobs:
        return f"platform.max_jobs is reached: {now.count} run"
    free = _less(total, now.held)
    return "" if needs.fits(free) else f"it needs {_lacks(needs, free, 'has free')}"


def _lines(tx: Connection) -> Iterator[Row[Any]]:
    """Yield the first job of each project, pipeline and priority of which jobs wait.

    One step in the index for each, however many jobs wait.
    """
    row = tx.execute(_FIRST).one_or_none()
    while row is not None:
        yield row
        line = {"project": row.project, "pipeline": row.pipeline, "priority": row.priority}
        row = tx.execute(_NEXT, line).one_or_none()


def _startable(
    tx: Connection, rules: Rules, line: Row[Any], at: datetime, but: Collection[str]
) -> list[Row[Any]]:
    """Return the first job of a line that the machine can run, and that nobody is leaving."""
    if line.id not in but and _is_ready(line, at) and _needs(line).fits(rules.total):
        return [line]
    is_ready = jobs.c.ready_at.is_(None) | (jobs.c.ready_at <= at)
    fits = _fits(rules.total) & is_ready & jobs.c.id.not_in(sorted(but))
    return _of_line(tx, line, 1, fits)


def _of_line(
    tx: Connection, line: Row[Any], count: int, *conditions: ColumnElement[bool]
) -> list[Row[Any]]:
    query = _WAITING.where(
        jobs.c.project == line.project,
        jobs.c.pipeline == line.pipeline,
        jobs.c.priority == line.priority,
        *conditions,
    )
    return list(tx.execute(query.limit(count)))


def _is_ready(row: Row[Any], at: datetime) -> bool:
    return row.ready_at is None or row.ready_at <= at


def _first(rules: Rules, rows: list[Row[Any]]) -> Row[Any]:
    return min(rows, key=lambda row: (rules.turn(row.queued_at, row.priority), row.seq))


def _held_back(
    tx: Connection, rules: Rules, now: Running, job: Row[Any] | Job, at: datetime
) -> str | None:
    """Return which limit of its pipeline or project keeps a job from starting; None: none does."""
    for kind in kinds_of(job):
        limits, runs = rules.of(kind), now.of.get(kind, 0)
        if limits.running is not None and runs >= limits.running:
            return f"limits.running of {kind} is reached: {runs} run"
        again = _allowed_at(tx, kind, limits.daily, at)
        if again is not None:
            return (
                f"limits.daily of {kind} is reached: {limits.daily} started within 24 hours: "
                f"the next one starts at {again:%Y-%m-%d %H:%M} UTC"
            )
    return None


def _allowed_at(tx: Connection, kind: Kind, daily: int | None, at: datetime) -> datetime | None:
    """Return when a job of a kind may start again; None: one may now."""
    if daily is None:
        return None
    # The start that must be a day ago: the last but so many.
    started: datetime | None = tx.scalar(
        select(jobs.c.started_at)
        .where(jobs.c[kind.column] == kind.name, jobs.c.started_at > at - DAY)
        .order_by(jobs.c.started_at.desc())
        .offset(daily - 1)
        .limit(1)
    )
    return None if started is None else started + DAY


def _fits(total: Resources) -> ColumnElement[bool]:
    return (
        (jobs.c.cpus <= total.cpus) & (jobs.c.memory <= total.memory) & (jobs.c.gpus <= total.gpus)
    )


def _needs(row: Row[Any]) -> Resources:
    return Resources(row.cpus, row.memory, row.gpus)


def _less(some: Resources, other: Resources) -> Resources:
    return Resources(some.cpus - other.cpus, some.memory - other.memory, some.gpus - other.gpus)


def _spare(free: Resources, first: Resources) -> Resources:
    """Return what may be taken of what is free, without the first of the queue waiting longer.

    Of what it waits for that is nothing at all.
    """
    left = _less(free, first)
    return Resources(max(left.cpus, 0), max(left.memory, 0), max(left.gpus, 0))


def _lacks(needs: Resources, there: Resources, has: str) -> str:
    """Say what is needed of which there is too little."""
    units = {
        "CPUs": (needs.cpus, there.cpus),
        "bytes of memory": (needs.memory, there.memory),
        "GPUs": (needs.gpus, there.gpus),
    }
    return " and ".join(
        f"{wanted} {unit}, and the machine {has} {max(found, 0)}"
        for unit, (wanted, found) in units.items()
        if wanted > found
    )
