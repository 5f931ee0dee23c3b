"""The queue as a whole: who is next, and what keeps a job in it."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.config import Pipeline, Project, Settings
from dicom_adapter.errors import FullError
from dicom_adapter.ledger import Ledger, due, pauses, queue, turns
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.ledger.turns import Kind, Limits, Rules
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import Event, Job, Resources, Waiting


def rules_of(settings: Settings) -> Rules:
    """Return what the queue goes by."""
    platform = settings.platform
    capacity = platform.capacity
    return Rules(
        total=Resources(capacity.cpus, capacity.memory, capacity.gpus),
        max_jobs=platform.max_jobs,
        ageing=timedelta(seconds=platform.ageing),
        limits={
            **{Kind("pipeline", name): _limits(of) for name, of in settings.pipelines.items()},
            **{Kind("project", name): _limits(of) for name, of in settings.projects.items()},
        },
    )


def _limits(of: Pipeline | Project) -> Limits:
    return Limits(of.limits.running, of.limits.waiting, of.limits.daily)


class JobQueue:
    """Hands jobs out in their order, and tells why one waits."""

    def __init__(self, ledger: Ledger, clock: Clock, rules: Rules) -> None:
        self._ledger = ledger
        self._clock = clock
        #: What it goes by now; jobs that run are let run when it changes.
        self.rules = rules

    def claim(self, *, but: Collection[str]) -> Claim | None:
        """Take the job whose turn it is; None where nobody may start now.

        Args:
            but: Jobs whose attempt before this one has not ended here.
        """
        with self._ledger.write() as tx:
            at = self._clock.now()
            if pauses.current(tx) is not None:
                return None
            job_id = turns.next_turn(tx, self.rules, at, but=but)
            return None if job_id is None else queue.claim(tx, job_id, at)

    def next_look(self, at: datetime) -> datetime | None:
        """Return when a job starts or fails that nothing but the time kept waiting at a moment."""
        with self._ledger.read() as tx:
            moments = (turns.next_allowance(tx, self.rules, at), due.next_due(tx, at))
        return min(filter(None, moments), default=None)

    def check_room(self, tx: Connection, job: Job) -> None:
        """Make sure that a job may wait, too.

        Raises:
            FullError: as many wait already as the limit of its pipeline or project lets.
        """
        for kind in turns.kinds_of(job):
            most = self.rules.of(kind).waiting
            if most is not None and turns.waiting(tx, kind) >= most:
                raise FullError(
                    f"limits.waiting of {kind} is reached: {most}: try again when one of them has "
                    "started"
                )

    def explained(self, tx: Connection, job: Job) -> Job:
        """Return a job; one that waits says why."""
        if job.state != JobState.IN_QUEUE:
            return job
        before = turns.before(tx, self.rules, job)
        paused = pauses.current(tx)
        why = turns.why_waiting(tx, self.rules, job, self._clock.now())
        if paused is not None:
            why = told(paused)
        elif not why and before:
            why = "jobs before it are waited for"
        return replace(job, waiting=Waiting(before, why))


def told(pause: Event) -> str:
    """Return the words for a pause."""
    because = f": {pause.reason}" if pause.reason else ""
    return f"the platform was paused by {pause.actor} at {pause.at:%Y-%m-%d %H:%M} UTC{because}"
