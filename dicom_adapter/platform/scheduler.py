"""Takes jobs off the queue as the machine has room, runs them, and commits what came of them."""

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import PlatformSettings
from dicom_adapter.errors import StaleLeaseError, UnavailableError, fingerprint
from dicom_adapter.ledger import Ledger, jobs, leases, queue
from dicom_adapter.lifecycle import Action, JobState, Reason
from dicom_adapter.model import ItemState, Job, JobInput, JobOutput, Resources
from dicom_adapter.platform.executor import Ended, Execution
from dicom_adapter.platform.heartbeat import Heartbeat
from dicom_adapter.platform.recovery import Recovery
from dicom_adapter.platform.workspace import (
    BrokenInputError,
    InvalidOutputError,
    Workspace,
    Workspaces,
)
from dicom_adapter.worker import Worker

LONGEST_ERROR = 500
LEDGER_PAUSE_SECONDS = 1.0
NO_ROOM_PAUSE_SECONDS = 5.0
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

log = structlog.get_logger()


@dataclass
class _Run:
    """A job that runs now; `execution` is None while its inputs are checked.

    `ending` says why it is to end, also when that is known before its process is there.
    """

    job: Job
    lease: str
    execution: Execution | None = None
    ending: Reason | None = None
    thread: threading.Thread | None = None


class Scheduler:
    """Runs jobs by priority, then in the order of their registration, as capacity allows."""

    def __init__(
        self,
        settings: PlatformSettings,
        ledger: Ledger,
        clock: Clock,
        workspaces: Workspaces,
        *,
        ended: Callable[[], None],
    ) -> None:
        self._go_by(settings)
        self._ledger = ledger
        self._clock = clock
        self._workspaces = workspaces
        self._ended = ended
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._stopping = threading.Event()
        self._worker = Worker("scheduler", self._work, clock)
        self._heartbeat = Heartbeat(ledger, clock, held=self._leases, lost=self._lose)
        self._recovery = Recovery(ledger, clock, workspaces)

    def _go_by(self, settings: PlatformSettings) -> None:
        capacity = settings.capacity
        self._total = Resources(capacity.cpus, capacity.memory, capacity.gpus)
        self._max_jobs = settings.max_jobs
        self._on_lost = settings.on_lost

    def reload(self, settings: PlatformSettings) -> None:
        """Go by other settings from now on; jobs that run are let run."""
        self._go_by(settings)
        self.wake()

    def start(self) -> None:
        """Put right what a crash left, then start taking jobs."""
        self._recovery.at_start(self._on_lost)
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

    def _end_run(self, run: _Run, why: Reason) -> None:
        with self._lock:
            run.ending = run.ending or why
            execution = run.execution
        # Where the process is not there yet, its start looks at `ending`.
        if execution is not None:
            execution.interrupt(why)

    def _leases(self) -> list[str]:
        with self._lock:
            return [run.lease for run in self._runs.values()]

    def _lose(self, taken: set[str]) -> None:
        """End the runs whose leases others have; those that have just ended are not affected."""
        with self._lock:
            runs = [run for run in self._runs.values() if run.lease in taken]
        for run in runs:
            self._end_run(run, Reason.LOST)

    def _work(self) -> datetime | None:
        with self._lock:
            own = list(self._runs)
        next_end = self._recovery.while_running(self._on_lost, own)
        while not self._worker.stopping:
            with self._lock:
                free = self._free()
                room = len(self._runs) < self._max_jobs
            if not room or not self._take(free):
                break
        return next_end

    def _free(self) -> Resources:
        held = [run.job.requested for run in self._runs.values()]
        return Resources(
            self._total.cpus - sum(resources.cpus for resources in held),
            self._total.memory - sum(resources.memory for resources in held),
            self._total.gpus - sum(resources.gpus for resources in held),
        )

    def _take(self, free: Resources) -> bool:
        with self._lock:
            # A run that has given its job up already, but has not left its folder.
            leaving = list(self._runs)
        with self._ledger.write() as tx:
            claim = queue.claim_next(tx, free, self._total, self._clock.now(), but=leaving)
        if claim is None:
            return False
        run = _Run(claim.job, claim.lease)
        run.thread = threading.Thread(target=self._run, args=(run,), name=run.job.name, daemon=True)
        with self._lock:
            self._runs[run.job.id] = run
        self._heartbeat.wake()
        run.thread.start()
        return True

    def _run(self, run: _Run) -> None:
        job = run.job
        started = log.bind(job=job.name, pipeline=job.pipeline, attempt=job.attempts)
        started.info("job started", action="job.started")
        try:
            self._attempt(run, self._workspaces.of(job.id))
        except StaleLeaseError:
            self._drop(run)
        except Exception as error:  # noqa: BLE001 - whatever happens, no job stays processing
            cause = fingerprint(error)
            started.error("job failed within the platform", action="job.internal_error", **cause)
            self._give_up(run, f"{cause['error']} in the platform at {cause['at']}")
        finally:
            with self._lock:
                del self._runs[job.id]
            self.wake()
            self._ended()

    def _give_up(self, run: _Run, error: str) -> None:
        try:
            self._hold(run)
            with suppress(OSError):
                self._workspaces.of(run.job.id).discard_attempt()
            self._record_failure(run, Reason.INTERNAL, error)
        except StaleLeaseError:
            self._drop(run)
        except Exception as cause:  # noqa: BLE001 - nothing is behind this but the thread's end
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "a job's end cannot be recorded; it is lost once its lease has run out",
                action="job.unrecorded",
                job=run.job.name,
                **fingerprint(cause),
            )

    def _hold(self, run: _Run) -> None:
        """Make sure that the job, and so its folder, stays this attempt's for a while.

        Raises:
            StaleLeaseError: it is another's already.
        """
        self._commit(lambda tx: leases.hold(tx, run.job.id, run.lease, self._clock.now()))

    def _drop(self, run: _Run) -> None:
        """Leave a job alone that is no longer ours, and remove only what nobody else can own."""
        log.warning(
            "another has taken the job over, or ended it: what this attempt did is dropped",
            action="job.lease_lost",
            job=run.job.name,
            attempt=run.job.attempts,
        )
        with suppress(OSError, UnavailableError):
            with self._ledger.read() as tx:
                state = queue.state_of(tx, run.job.id)
            workspace = self._workspaces.of(run.job.id)
            if state in (JobState.FINISHED, JobState.INVALIDATED):
                workspace.discard_staged()
            elif state not in leases.HELD:
                # Not taken again here before this run has ended.
                workspace.discard_attempt()

    def _attempt(self, run: _Run, workspace: Workspace) -> None:
        job = run.job
        with self._ledger.read() as tx:
            inputs = jobs.inputs_of(tx, job.id)
        try:
            workspace.check_inputs(inputs)
            if not self._prepare(run, workspace, inputs):
                return
        except BrokenInputError as error:
            self._fail(run, Reason.INPUT_ERROR, f"{error}: send the study again")
            return
        try:
            execution = Execution(job, workspace)
        except OSError as error:
            self._fail(
                run,
                Reason.PIPELINE_ERROR,
                f"the command '{job.command[0]}' cannot be started: {error.strerror}",
            )
            return
        with self._lock:
            run.execution = execution
            ending = run.ending
        if ending is not None:
            # It came between the claim and the start, and so missed this process.
            execution.interrupt(ending)
        ended = execution.wait(job.timeout, lambda reports: self._note_steps(run, reports))
        self._settle(run, workspace, ended)

    def _prepare(self, run: _Run, workspace: Workspace, inputs: Sequence[JobInput]) -> bool:
        """Prepare a job as soon as the disk has room; False when the stop comes before that.

        A full disk is not the job's fault, and its sender was told that all is well.
        """
        while True:
            self._hold(run)
            try:
                workspace.prepare(run.job, inputs)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.warning(
                    "the disk has no room to start a job; it is tried again",
                    action="job.no_room",
                    job=run.job.name,
                )
            else:
                return True
            if self._stopping.wait(NO_ROOM_PAUSE_SECONDS):
                self._put_back(run)
                return False

    def _note_steps(self, run: _Run, reports: Mapping[str, float]) -> None:
        job = run.job
        steps = {step.name for step in job.steps}
        known = {step: progress for step, progress in reports.items() if step in steps}
        if not known:
            return
        try:
            with self._ledger.write() as tx:
                for step, progress in known.items():
                    queue.set_step(tx, job.id, step, progress, lease=run.lease)
        except UnavailableError:
            # A courtesy to those who watch: the pipeline itself goes on without it.
            log.warning("progress not recorded", action="job.progress_lost", job=job.name)

    def _settle(self, run: _Run, workspace: Workspace, ended: Ended) -> None:
        # First why we ended it: many programs answer TERM with exit code 0 and half an output.
        if ended.interrupted == Reason.LOST:
            self._drop(run)
        elif ended.interrupted == Reason.DRAIN:
            self._hold(run)
            workspace.discard_attempt()
            self._put_back(run)
        elif ended.interrupted:
            told = f"it ran longer than its timeout of {run.job.timeout} s"
            self._fail(run, Reason.RUN_TIMEOUT, told, ended)
        elif ended.exit_code == 0:
            try:
                outputs = workspace.collect_outputs()
            except InvalidOutputError as error:
                self._fail(run, Reason.OUTPUT_INVALID, str(error), ended)
            else:
                self._finish(run, workspace, outputs, ended)
        else:
            reason = _explain(ended.exit_code)
            last = workspace.last_log_line()
            told = f"{reason}; the log ends with: {last}" if last else reason
            self._fail(run, Reason.PIPELINE_ERROR, told, ended)

    def _finish(
        self, run: _Run, workspace: Workspace, outputs: tuple[JobOutput, ...], ended: Ended
    ) -> None:
        job = run.job

        def finish(tx: Any) -> None:  # noqa: ANN401 - a Connection
            queue.add_outputs(tx, job.id, outputs, lease=run.lease)
            queue.finish_steps(tx, job.id, lease=run.lease)
            queue.move(
                tx,
                job.id,
                Action.FINISH,
                at=self._clock.now(),
                item=ItemState.FINISHED,
                values=self._end(ended),
                lease=run.lease,
            )
            # Within: nobody can take the lease now. Last: a crash before the commit leaves a job
            # that is run again, and the next attempt begins by removing these.
            workspace.commit_outputs()

        self._commit(finish)
        workspace.discard_staged()
        log.info(
            "job finished",
            action="job.finished",
            job=job.name,
            outputs=len(outputs),
            seconds=ended.used.wall_seconds,
        )

    def _fail(self, run: _Run, reason: Reason, error: str, ended: Ended | None = None) -> None:
        self._hold(run)
        self._workspaces.of(run.job.id).discard_attempt()
        self._record_failure(run, reason, error, ended)

    def _record_failure(
        self, run: _Run, reason: Reason, error: str, ended: Ended | None = None
    ) -> None:
        self._commit(
            lambda tx: queue.move(
                tx,
                run.job.id,
                Action.FAIL,
                at=self._clock.now(),
                item=ItemState.FAILED,
                values={**self._end(ended), "error": error[:LONGEST_ERROR]},
                reason=reason,
                lease=run.lease,
            )
        )
        # The error itself may quote the log, and so patient data: `jobs show` has it.
        log.error("job failed: see `dicom-adapter jobs show`", action="job.failed",
                  job=run.job.name, reason=reason)  # fmt: skip

    def _put_back(self, run: _Run) -> None:
        now = self._clock.now()
        self._commit(
            lambda tx: queue.put_back(tx, run.job.id, at=now, lease=run.lease, reason=Reason.DRAIN)
        )
        log.info("job put back into the queue", action="job.requeued", job=run.job.name)

    def _commit(self, change: Callable[[Any], object]) -> None:
        """Make a change as soon as the ledger can be written; a full disk must not lose an end.

        Raises:
            UnavailableError: the platform is stopped before that.
        """
        while True:
            try:
                with self._ledger.write() as tx:
                    change(tx)
            except UnavailableError:
                log.warning(
                    "the ledger cannot be written; it is tried again", action="ledger.unavailable"
                )
                if self._stopping.wait(LEDGER_PAUSE_SECONDS):
                    raise
            else:
                return

    def _end(self, ended: Ended | None) -> Mapping[str, Any]:
        values: dict[str, Any] = {"finished_at": self._clock.now()}
        if ended is not None:
            values |= {
                "exit_code": ended.exit_code,
                "cpu_seconds": ended.used.cpu_seconds,
                "max_rss_bytes": ended.used.max_rss_bytes,
                "wall_seconds": ended.used.wall_seconds,
            }
        return values


def _explain(exit_code: int) -> str:
    if exit_code < 0:
        return f"the command was ended by signal {-exit_code}"
    return f"the command ended with exit code {exit_code}"
