"""Puts right what a crash left: jobs that nobody runs any more, their processes and folders."""

from datetime import datetime
from typing import Literal

import structlog
from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.ledger import Ledger, due, jobs, leases, queue
from dicom_adapter.ledger.leases import Lost
from dicom_adapter.lifecycle import ENDED_ITEM, Action, ItemState, JobState, Reason
from dicom_adapter.model import Job, JobItem
from dicom_adapter.platform.executor import Executor
from dicom_adapter.platform.workspace import Workspaces

OnLost = Literal["requeue", "fail"]

CRASHED = "the service ended while it ran"
EXPIRED = "whoever ran it stopped renewing its lease"
CURE = "platform.on_lost is 'fail', so it was not run again: send the study again"
EXHAUSTED = (
    "it has run again as often as its pipeline's retries say: look for what ends the service"
)

log = structlog.get_logger()


class Recovery:
    """Finds the jobs whose attempt is gone; none of them stays as it is.

    `on_lost` may be changed at any time; it counts for what is found from then on.
    """

    def __init__(
        self,
        on_lost: OnLost,
        ledger: Ledger,
        clock: Clock,
        workspaces: Workspaces,
        executor: Executor,
    ) -> None:
        self.on_lost = on_lost
        self._ledger = ledger
        self._clock = clock
        self._workspaces = workspaces
        self._executor = executor

    def at_start(self) -> None:
        """Put right what an earlier run of this data folder left: nothing in it runs now."""
        survivors = self._executor.end_processes(self._workspaces.folder)
        with self._ledger.write() as tx:
            lost = leases.take_over(tx, self._clock.now(), all_held=True)
        for job in lost:
            survivors += self._end_container(job)
            self._settle(job, CRASHED)
        self._end_deletions()
        self._agree_on_outputs()
        self._sweep()
        if lost or survivors:
            log.warning(
                "jobs of an earlier run were put right",
                action="platform.recovered",
                jobs=len(lost),
                processes=survivors,
            )

    def while_running(self, own: list[str]) -> datetime | None:
        """Take over the jobs of others whose lease has run out; return when the next one does."""
        with self._ledger.read() as tx:
            end = leases.next_end(tx, own)
        if end is None or end > self._clock.now():
            return end
        with self._ledger.write() as tx:
            lost = leases.take_over(tx, self._clock.now(), but=own)
        for job in lost:
            # Fenced off already: what it still does cannot change the job.
            self._executor.end_processes(self._workspaces.folder, job.job_id)
            self._end_container(job)
            self._settle(job, EXPIRED)
        with self._ledger.read() as tx:
            return leases.next_end(tx, own)

    def _end_container(self, job: Lost) -> int:
        # Asked only for a job that may have one: where there are none, no runtime is needed.
        return self._executor.end_container(job.job_id) if job.image else 0

    def _settle(self, job: Lost, why: str) -> None:
        # Before the move: whoever takes the job then has its folder. A crash in between changes
        # nothing, the job is found again.
        self._discard_attempt(job)
        with self._ledger.write() as tx:
            state = self._move(tx, job, why)
        log.warning(
            "job was lost with its attempt", action="job.lost", job=job.name, now=state, why=why
        )

    def _discard_attempt(self, job: Lost) -> None:
        with self._ledger.read() as tx:
            items = jobs.get(tx, job.job_id).items
        workspace = self._workspaces.of(job.job_id)
        for item in items:
            # What the others have put out stays: they are not run again.
            if item.state not in ENDED_ITEM:
                workspace.of_item(item, len(items)).discard_attempt()

    def _move(self, tx: Connection, job: Lost, why: str) -> JobState:
        # Looked at here: a person may have asked for its end meanwhile.
        found = jobs.get(tx, job.job_id)
        runs = found.state == JobState.PROCESSING
        if runs and found.rules.retries.attempts:
            return self._try_again(tx, job, why)
        if not runs or self.on_lost == "requeue":
            now = self._clock.now()
            return queue.put_back(tx, job.job_id, at=now, lease=job.lease, reason=Reason.LOST)
        return self._fail(tx, job, f"{why}; {CURE}")

    def _try_again(self, tx: Connection, job: Lost, why: str) -> JobState:
        """Go by the pipeline's own rule: a job that ends its machine each time must not go on."""
        later = due.back_off(
            tx,
            job.job_id,
            at=self._clock.now(),
            lease=job.lease,
            cause=f"{Reason.LOST}, {why}",
            values={"error": why},
        )
        return self._fail(tx, job, f"{why}; {EXHAUSTED}") if later is None else later.state

    def _fail(self, tx: Connection, job: Lost, error: str) -> JobState:
        now = self._clock.now()
        queue.move(
            tx,
            job.job_id,
            Action.FAIL,
            at=now,
            values={"finished_at": now, "error": error},
            reason=Reason.LOST,
            lease=job.lease,
        )
        return JobState.FAILED

    def _end_deletions(self) -> None:
        """Take up deletions that the crash cut off, where the ledger has them or has them not."""
        condemned = self._workspaces.condemned()
        with self._ledger.read() as tx:
            known = jobs.known(tx, condemned)
        for job_id in condemned:
            if job_id in known:
                self._workspaces.pardon(job_id)
            else:
                self._workspaces.remove_condemned(job_id)

    def _agree_on_outputs(self) -> None:
        """Have outputs lie where the ledger says, where a crash cut a retry off."""
        with self._ledger.read() as tx:
            cut_off = self._workspaces.cut_off()
            ids = {*jobs.known(tx, cut_off), *jobs.with_superseded(tx)}
            found = [jobs.get(tx, job_id) for job_id in ids]
        for job in found:
            for item in job.items:
                self._agree_on_item(job, item)
        for job_id in cut_off:
            self._workspaces.agreed(job_id)

    def _agree_on_item(self, job: Job, item: JobItem) -> None:
        workspace = self._workspaces.of(job.id).of_item(item, len(job.items))
        if item.state == ItemState.FINISHED:
            workspace.restore_outputs(job.attempts)
        elif job.attempts in job.superseded_outputs:
            workspace.supersede_outputs(job.attempts)

    def _sweep(self) -> None:
        """Remove the folders of submissions that the crash cut off: nobody was told of them."""
        folders = self._workspaces.all_ids()
        with self._ledger.read() as tx:
            known = jobs.known(tx, folders)
        left = 0
        for folder in folders:
            if folder in known:
                continue
            if self._workspaces.was_started(folder):
                # It was a job once: the ledger is an older one, and this may be all there is of it.
                left += 1
            else:
                self._workspaces.remove(folder)
        if left:
            log.warning(
                "folders of jobs that the ledger does not know were left where they are",
                action="platform.unknown_workspaces",
                folders=left,
                path=str(self._workspaces.folder),
            )
