"""Takes jobs off the queue as the machine has room, runs them, and commits what came of them."""

import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import PlatformSettings
from dicom_adapter.errors import UnavailableError, fingerprint
from dicom_adapter.ledger import Ledger, jobs, queue
from dicom_adapter.lifecycle import Action, Reason
from dicom_adapter.model import ItemState, Job, JobInput, JobOutput, Resources
from dicom_adapter.platform.executor import Ended, Execution, end_processes
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
    """A job that runs now; `execution` is None while its inputs are checked."""

    job: Job
    thread: threading.Thread
    execution: Execution | None = None


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
        self._draining = False
        self._stopping = threading.Event()
        self._worker = Worker("scheduler", self._work, clock)

    def _go_by(self, settings: PlatformSettings) -> None:
        capacity = settings.capacity
        self._total = Resources(capacity.cpus, capacity.memory, capacity.gpus)
        self._max_jobs = settings.max_jobs

    def reload(self, settings: PlatformSettings) -> None:
        """Go by other settings from now on; jobs that run are let run."""
        self._go_by(settings)
        self.wake()

    def start(self) -> None:
        """Put right what a crash left, then start taking jobs."""
        survivors = end_processes(f"{self._workspaces.folder}{os.sep}")
        folders = self._workspaces.all_ids()
        with self._ledger.write() as tx:
            lost = queue.processing(tx)
            for job_id in lost:
                self._workspaces.of(job_id).discard_attempt()
                self._requeue(tx, job_id, Reason.LOST)
            known = jobs.known(tx, folders)
        for folder in folders:
            # A submission that the crash cut off before its row: nobody was told of it.
            if folder not in known:
                self._workspaces.remove(folder)
        if lost or survivors:
            log.warning(
                "jobs of an earlier run were put back into the queue",
                action="platform.recovered",
                jobs=len(lost),
                processes=survivors,
            )
        self._worker.start()

    def wake(self) -> None:
        """Look at the queue: a job came, or resources are free."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Stop taking jobs, end those that run and put them back into the queue."""
        self._stopping.set()
        self._worker.stop(timeout)
        with self._lock:
            self._draining = True
            runs = list(self._runs.values())
            executions = [run.execution for run in runs if run.execution is not None]
        for execution in executions:
            execution.interrupt(Reason.DRAIN)
        for run in runs:
            run.thread.join(timeout)

    def _work(self) -> datetime | None:
        while not self._worker.stopping:
            with self._lock:
                free = self._free()
                room = len(self._runs) < self._max_jobs
            if not room or not self._take(free):
                break
        return None

    def _free(self) -> Resources:
        held = [run.job.requested for run in self._runs.values()]
        return Resources(
            self._total.cpus - sum(resources.cpus for resources in held),
            self._total.memory - sum(resources.memory for resources in held),
            self._total.gpus - sum(resources.gpus for resources in held),
        )

    def _take(self, free: Resources) -> bool:
        with self._ledger.write() as tx:
            job = queue.claim_next(tx, free, self._total, self._clock.now())
        if job is None:
            return False
        thread = threading.Thread(target=self._run, args=(job,), name=job.name, daemon=True)
        with self._lock:
            self._runs[job.id] = _Run(job, thread)
        thread.start()
        return True

    def _run(self, job: Job) -> None:
        started = log.bind(job=job.name, pipeline=job.pipeline, attempt=job.attempts)
        started.info("job started", action="job.started")
        try:
            self._attempt(job, self._workspaces.of(job.id))
        except Exception as error:  # noqa: BLE001 - whatever happens, no job stays processing
            cause = fingerprint(error)
            started.error("job failed within the platform", action="job.internal_error", **cause)
            self._give_up(job, f"{cause['error']} in the platform at {cause['at']}")
        finally:
            with self._lock:
                del self._runs[job.id]
            self.wake()
            self._ended()

    def _give_up(self, job: Job, error: str) -> None:
        try:
            self._record_failure(job, Reason.INTERNAL, error)
        except Exception as cause:  # noqa: BLE001 - nothing is behind this but the thread's end
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "a job's end cannot be recorded; the next start puts it back into the queue",
                action="job.unrecorded",
                job=job.name,
                **fingerprint(cause),
            )

    def _attempt(self, job: Job, workspace: Workspace) -> None:
        with self._ledger.read() as tx:
            inputs = jobs.inputs_of(tx, job.id)
        try:
            workspace.check_inputs(inputs)
            if not self._prepare(job, workspace, inputs):
                return
        except BrokenInputError as error:
            self._fail(job, Reason.INPUT_ERROR, f"{error}: send the study again")
            return
        try:
            execution = Execution(job, workspace)
        except OSError as error:
            self._fail(
                job,
                Reason.PIPELINE_ERROR,
                f"the command '{job.command[0]}' cannot be started: {error.strerror}",
            )
            return
        with self._lock:
            self._runs[job.id].execution = execution
            draining = self._draining
        if draining:
            # The stop came between the claim and the start, and so missed this process.
            execution.interrupt(Reason.DRAIN)
        ended = execution.wait(job.timeout, lambda reports: self._note_steps(job, reports))
        self._settle(job, workspace, ended)

    def _prepare(self, job: Job, workspace: Workspace, inputs: Sequence[JobInput]) -> bool:
        """Prepare a job as soon as the disk has room; False when the stop comes before that.

        A full disk is not the job's fault, and its sender was told that all is well.
        """
        while True:
            try:
                workspace.prepare(job, inputs)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.warning(
                    "the disk has no room to start a job; it is tried again",
                    action="job.no_room",
                    job=job.name,
                )
            else:
                return True
            if self._stopping.wait(NO_ROOM_PAUSE_SECONDS):
                self._commit(lambda tx: self._requeue(tx, job.id, Reason.DRAIN))
                return False

    def _note_steps(self, job: Job, reports: Mapping[str, float]) -> None:
        steps = {step.name for step in job.steps}
        known = {step: progress for step, progress in reports.items() if step in steps}
        if not known:
            return
        try:
            with self._ledger.write() as tx:
                for step, progress in known.items():
                    queue.set_step(tx, job.id, step, progress)
        except UnavailableError:
            # A courtesy to those who watch: the pipeline itself goes on without it.
            log.warning("progress not recorded", action="job.progress_lost", job=job.name)

    def _settle(self, job: Job, workspace: Workspace, ended: Ended) -> None:
        # First why we ended it: many programs answer TERM with exit code 0 and half an output.
        if ended.interrupted == Reason.DRAIN:
            workspace.discard_attempt()
            self._commit(lambda tx: self._requeue(tx, job.id, Reason.DRAIN))
            log.info("job put back into the queue", action="job.requeued", job=job.name)
        elif ended.interrupted:
            self._fail(
                job, Reason.RUN_TIMEOUT, f"it ran longer than its timeout of {job.timeout} s", ended
            )
        elif ended.exit_code == 0:
            try:
                outputs = workspace.collect_outputs()
            except InvalidOutputError as error:
                self._fail(job, Reason.OUTPUT_INVALID, str(error), ended)
            else:
                workspace.commit_outputs()
                self._finish(job, outputs, ended)
        else:
            reason = _explain(ended.exit_code)
            last = workspace.last_log_line()
            told = f"{reason}; the log ends with: {last}" if last else reason
            self._fail(job, Reason.PIPELINE_ERROR, told, ended)

    def _finish(self, job: Job, outputs: tuple[JobOutput, ...], ended: Ended) -> None:
        def finish(tx: Any) -> None:  # noqa: ANN401 - a Connection
            queue.add_outputs(tx, job.id, outputs)
            queue.finish_steps(tx, job.id)
            queue.move(
                tx,
                job.id,
                Action.FINISH,
                at=self._clock.now(),
                item=ItemState.FINISHED,
                values=self._end(ended),
            )

        self._commit(finish)
        log.info(
            "job finished",
            action="job.finished",
            job=job.name,
            outputs=len(outputs),
            seconds=ended.used.wall_seconds,
        )

    def _fail(self, job: Job, reason: Reason, error: str, ended: Ended | None = None) -> None:
        self._workspaces.of(job.id).discard_attempt()
        self._record_failure(job, reason, error, ended)

    def _record_failure(
        self, job: Job, reason: Reason, error: str, ended: Ended | None = None
    ) -> None:
        self._commit(
            lambda tx: queue.move(
                tx,
                job.id,
                Action.FAIL,
                at=self._clock.now(),
                item=ItemState.FAILED,
                values={**self._end(ended), "error": error[:LONGEST_ERROR]},
                reason=reason,
            )
        )
        # The error itself may quote the log, and so patient data: `jobs show` has it.
        log.error("job failed: see `dicom-adapter jobs show`", action="job.failed", job=job.name,
                  reason=reason)  # fmt: skip

    def _requeue(self, tx: Any, job_id: str, reason: Reason) -> None:  # noqa: ANN401 - a Connection
        queue.move(
            tx,
            job_id,
            Action.REQUEUE,
            at=self._clock.now(),
            item=ItemState.IN_QUEUE,
            values={"started_at": None},
            reason=reason,
        )

    def _commit(self, change: Callable[[Any], None]) -> None:
        """Make a change as soon as the ledger can be written; a full disk must not lose an end.

        Raises:
            UnavailableError: the platform is stopped before that.
        """
        while True:
            try:
                with self._ledger.write() as tx:
                    return change(tx)
            except UnavailableError:
                log.warning(
                    "the ledger cannot be written; it is tried again", action="ledger.unavailable"
                )
                if self._stopping.wait(LEDGER_PAUSE_SECONDS):
                    raise

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
