"""Takes jobs off the queue as the machine has room, runs them, and commits what came of them."""

import itertools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import StaleLeaseError, fingerprint
from dicom_adapter.ledger import Ledger, due, jobs
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.ledger.turns import Rules
from dicom_adapter.lifecycle import CancelPolicy, JobState, Phase, Reason
from dicom_adapter.model import JobItem
from dicom_adapter.platform.executor import Ended, Execution, Executor
from dicom_adapter.platform.heartbeat import Heartbeat
from dicom_adapter.platform.program import CannotStartError
from dicom_adapter.platform.queue import JobQueue
from dicom_adapter.platform.records import Records
from dicom_adapter.platform.recovery import OnLost, Recovery
from dicom_adapter.platform.workspace import (
    BrokenInputError,
    InvalidOutputError,
    Workspace,
    Workspaces,
)
from dicom_adapter.worker import Worker

# Why a run is ended that a person wants to end.
CANCELLED = "cancelled"

log = structlog.get_logger()


@dataclass
class _Run:
    """A job that runs now; `execution` is None while the inputs of its item are checked.

    `ending` says why it is to end, also when that is known before its process is there.
    """

    #: With the item that runs now.
    claim: Claim
    execution: Execution | None = None
    ending: str | None = None
    #: Whether its process was asked to end, and may do as it likes.
    asked: bool = False
    #: The numbers of the graphics processors that its process has.
    gpus: tuple[int, ...] = ()
    thread: threading.Thread | None = None


class Scheduler:
    """Runs jobs in the order of the queue."""

    def __init__(
        self,
        queue: JobQueue,
        on_lost: OnLost,
        ledger: Ledger,
        clock: Clock,
        workspaces: Workspaces,
        *,
        executor: Executor,
        ended: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._ledger = ledger
        self._workspaces = workspaces
        self._executor = executor
        self._ended = ended
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._stopping = threading.Event()
        self._worker = Worker("scheduler", self._work, clock)
        self._heartbeat = Heartbeat(ledger, clock, held=self._leases, lost=self._lose)
        self._recovery = Recovery(on_lost, ledger, clock, workspaces, executor)
        self._records = Records(ledger, clock, workspaces, self._stopping)

    def reload(self, rules: Rules, on_lost: OnLost) -> None:
        """Go by other settings from now on; jobs that run are let run."""
        self._queue.rules = rules
        self._recovery.on_lost = on_lost
        self.wake()

    def start(self) -> None:
        """Put right what a crash left, then start taking jobs."""
        self._recovery.at_start()
        self._heartbeat.start()
        self._worker.start()

    def wake(self) -> None:
        """Look at the queue: a job came, or resources are free."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Stop taking jobs, end those that run and put them back into the queue."""
        self._stopping.set()
        self._worker.stop(timeout)
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            self._end_run(run, Reason.DRAIN)
        for run in runs:
            if run.thread is not None:
                run.thread.join(timeout)
        # Last: until then the leases must not run out.
        self._heartbeat.stop(timeout)

    def _end_run(self, run: _Run, why: str) -> None:
        with self._lock:
            run.ending = run.ending or why
            execution = run.execution
        # Where the process is not there yet, its start looks at `ending`.
        if execution is not None:
            execution.interrupt(why)

    def cancel(self, job_id: str) -> None:
        """End a job that is `cancelling`, if it runs here, as its pipeline wants it."""
        with self._lock:
            run = self._runs.get(job_id)
        # One that has no process yet looks at its state before it starts one.
        if run is None or run.execution is None:
            return
        self._end_item(run, run.execution)

    def cancel_item(self, job_id: str, item_id: str) -> None:
        """End an item that is `cancelling`, if it runs here, as its pipeline wants it."""
        with self._lock:
            run = self._runs.get(job_id)
            execution = None if run is None else run.execution
            if run is None or execution is None or run.claim.item.id != item_id:
                return
        self._end_item(run, execution)

    def _end_item(self, run: _Run, execution: Execution) -> None:
        policy = run.claim.job.cancel_policy
        if policy == CancelPolicy.KILL:
            # Its own end alone: what the job is to do then, its items say.
            execution.interrupt(CANCELLED)
        elif policy == CancelPolicy.REQUEST:
            run.asked = True
            execution.ask()

    def _leases(self) -> list[str]:
        with self._lock:
            return [run.claim.lease for run in self._runs.values()]

    def _lose(self, taken: set[str]) -> None:
        """End the runs whose leases others have; those that have just ended are not affected."""
        with self._lock:
            runs = [run for run in self._runs.values() if run.claim.lease in taken]
        for run in runs:
            self._end_run(run, Reason.LOST)

    def _work(self) -> datetime | None:
        # Before all that is done: what becomes due meanwhile may not have been seen any more.
        began = self._clock.now()
        with self._lock:
            own = list(self._runs)
        next_end = self._recovery.while_running(own)
        self._expire(began)
        while not self._worker.stopping and self._take():
            """Until nobody may start."""
        moments = (next_end, self._queue.next_look(began))
        return min((moment for moment in moments if moment is not None), default=None)

    def _expire(self, now: datetime) -> None:
        with self._ledger.read() as tx:
            if not due.overdue(tx, now):
                return
        with self._ledger.write() as tx:
            expired = [due.expire(tx, job_id, at=now) for job_id in due.overdue(tx, now)]
        for job in expired:
            log.error("job failed: it waited too long in the queue", action="job.failed",
                      job=job.name, reason=job.reason)  # fmt: skip
        self._ended()

    def _take(self) -> bool:
        with self._lock:
            # A run that has given its job up already, but has not left its folder.
            leaving = list(self._runs)
        if len(leaving) >= self._queue.rules.max_jobs:
            # The next one that ends looks again.
            return False
        claim = self._queue.claim(but=leaving)
        if claim is None:
            return False
        run = _Run(claim)
        run.thread = threading.Thread(
            target=self._run, args=(run,), name=run.claim.job.name, daemon=True
        )
        with self._lock:
            self._runs[run.claim.job.id] = run
        self._heartbeat.wake()
        try:
            run.thread.start()
        except RuntimeError:
            # The machine gives no more threads; there may be some after the worker's pause.
            with self._lock:
                del self._runs[run.claim.job.id]
            self._records.put_back(run.claim)
            raise
        return True

    def _run(self, run: _Run) -> None:
        job = run.claim.job
        started = log.bind(job=job.name, pipeline=job.pipeline, attempt=job.attempts)
        started.info("job started", action="job.started")
        try:
            while (following := self._attempt(run)) is not None:
                with self._lock:
                    run.claim = replace(run.claim, item=following)
                    run.execution, run.asked = None, False
        except StaleLeaseError:
            self._records.drop(run.claim)
        except Exception as error:  # noqa: BLE001 - whatever happens, no job stays processing
            cause = fingerprint(error)
            started.error("job failed within the platform", action="job.internal_error", **cause)
            self._records.give_up(run.claim, f"{cause['error']} in the platform at {cause['at']}")
        finally:
            with self._lock:
                del self._runs[job.id]
            self.wake()
            self._ended()

    def _attempt(self, run: _Run) -> JobItem | None:
        """Run an item; return the next one, which has begun, if there is any."""
        job, item = run.claim.job, run.claim.item
        workspace = self._workspaces.of(job.id).of_item(item, len(job.items))
        with self._ledger.read() as tx:
            inputs = jobs.inputs_of(tx, job.id)[item.id]
        try:
            workspace.check_inputs(inputs)
            if not self._records.when_room(run.claim, lambda: workspace.prepare(job, item, inputs)):
                return self._records.leave(run.claim)
        except BrokenInputError as error:
            told = f"{error}: send the study again"
            return self._records.fail(run.claim, Reason.INPUT_ERROR, told)
        if self._records.is_cancelled(run.claim):
            return self._records.stop(run.claim)
        self._records.note_phase(run.claim, Phase.EXECUTING)
        with self._gpus_for(run) as gpus:
            try:
                execution = self._executor.start(job, workspace, gpus)
            except CannotStartError as error:
                ended, problem = None, str(error)
            else:
                # What it exactly is: an image that a name stood for, for one.
                run.claim = replace(run.claim, job=execution.job)
                ended, problem = self._wait(run, execution), ""
        if ended is None:
            return self._records.fail(run.claim, Reason.PIPELINE_ERROR, problem)
        return self._settle(run, workspace, ended)

    @contextmanager
    def _gpus_for(self, run: _Run) -> Iterator[tuple[int, ...]]:
        """Give a process graphics processors of its own, until the block ends.

        They are free before the ledger says so: who starts by what the ledger says finds enough.
        """
        with self._lock:
            taken = {gpu for other in self._runs.values() for gpu in other.gpus}
            run.gpus = _free_gpus(taken, run.claim.job.requested.gpus)
        try:
            yield run.gpus
        finally:
            with self._lock:
                run.gpus = ()

    def _wait(self, run: _Run, execution: Execution) -> Ended:
        with self._lock:
            run.execution = execution
            ending = run.ending
        if ending is not None:
            # It came between the claim and the start, and so missed this process.
            execution.interrupt(ending)
        if self._records.is_cancelled(run.claim):
            # So may this.
            self._end_item(run, execution)
        return execution.wait(lambda reports: self._records.note_steps(run.claim, reports))

    def _settle(self, run: _Run, workspace: Workspace, ended: Ended) -> JobItem | None:
        claim = run.claim
        # First why we ended it: many programs answer TERM with exit code 0 and half an output.
        if ended.interrupted in (Reason.LOST, Reason.DRAIN):
            leave = (
                self._records.drop if ended.interrupted == Reason.LOST else self._records.put_back
            )
            leave(claim)
            return None
        if _is_cancelled(run, ended):
            return self._records.stop(claim, ended)
        if ended.interrupted:
            reason = Reason(ended.interrupted)
            return self._records.fail(claim, reason, _overtime(claim, reason), ended)
        if ended.exit_code == 0:
            return self._finish(claim, workspace, ended)
        last = "" if ended.error else workspace.last_log_line()
        told = f"{ended.told}; the log ends with: {last}" if last else ended.error or ended.told
        if ended.exit_code in claim.job.rules.retries.exit_codes:
            return self._records.try_again(claim, ended.told, told, ended)
        return self._records.fail(claim, ended.reason, told, ended)

    def _finish(self, claim: Claim, workspace: Workspace, ended: Ended) -> JobItem | None:
        self._records.note_phase(claim, Phase.FINALIZING)
        try:
            outputs = workspace.collect_outputs()
        except InvalidOutputError as error:
            return self._records.fail(claim, Reason.OUTPUT_INVALID, str(error), ended)
        return self._records.finish(claim, outputs, ended)


def _overtime(claim: Claim, reason: Reason) -> str:
    if reason == Reason.SILENCE_TIMEOUT:
        limit = claim.job.rules.silence_timeout
        return f"it told nothing for longer than its silence_timeout of {limit} s"
    return f"it ran longer than its timeout of {claim.job.timeout} s"


def _is_cancelled(run: _Run, ended: Ended) -> bool:
    if ended.answer is not None and not ended.interrupted:
        # Where another platform ran it, it says what became of it, whoever has asked for what.
        return ended.answer == JobState.CANCELLED
    return ended.interrupted == CANCELLED or (run.asked and ended.exit_code != 0)


def _free_gpus(taken: Collection[int], count: int) -> tuple[int, ...]:
    """Return the lowest numbers that nobody has."""
    free = (number for number in itertools.count() if number not in taken)
    return tuple(itertools.islice(free, count))
