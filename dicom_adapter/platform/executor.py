"""Runs one pipeline, whatever it is: waits for it, measures it, and reads what it tells."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_adapter.files import is_full
from dicom_adapter.lifecycle import JobState, Reason
from dicom_adapter.model import Job, ResourceUse
from dicom_adapter.platform.container import Container
from dicom_adapter.platform.joblog import LogPump, LogWriter
from dicom_adapter.platform.process import HostProcess, end_groups, end_processes
from dicom_adapter.platform.program import Exit, Program, RanAt
from dicom_adapter.platform.progress import ProgressReader
from dicom_adapter.platform.remote import RemoteProgram
from dicom_adapter.platform.remotes import Remotes
from dicom_adapter.platform.runtime import ContainerRuntime
from dicom_adapter.platform.version import version_of
from dicom_adapter.platform.workspace import Workspace

# From TERM to KILL.
# A cancelled job is to be gone within five seconds, whatever its processes do.
GRACE_SECONDS = 3.0
# How often a running pipeline's progress is read and its memory measured; at first more often.
FIRST_TICK_SECONDS = 0.05
TICK_SECONDS = 0.5

#: Starts a program that writes to a descriptor.
Launch = Callable[[int], Program]


@dataclass(frozen=True)
class RanAs:
    """What a job ran as, for its record; all empty for a process of this machine."""

    runtime: str = ""
    image_digest: str = ""


@dataclass(frozen=True)
class Ended:
    """How a run ended; `interrupted` says why we ended it, empty when it ended by itself."""

    exit_code: int
    interrupted: str
    used: ResourceUse
    #: How it ended in words, and why its job fails, where the code is not 0.
    told: str
    reason: Reason
    ran_as: RanAs
    #: Better than these words, where another platform has told it.
    error: str = ""
    #: What another platform has made of it, and which of its jobs that was.
    answer: JobState | None = None
    ran_at: RanAt | None = None


class Executor:
    """Starts jobs as what their pipelines are, and ends what a crash has left of them."""

    def __init__(self, runtime: ContainerRuntime, remotes: Remotes) -> None:
        self._runtime = runtime
        self._remotes = remotes

    def start(self, job: Job, workspace: Workspace, gpus: Sequence[int]) -> "Execution":
        """Start a job; `Execution.job` says exactly what it runs.

        Raises:
            CannotStartError: it cannot be started; says why, and the cure.
        """
        if job.rules.is_remote:
            return Execution(
                job,
                workspace,
                RanAs(),
                lambda out: RemoteProgram(job, workspace, self._remotes, out),
            )
        if not job.image:
            return Execution(
                job, workspace, RanAs(), lambda out: HostProcess(job, workspace, gpus, out)
            )
        image = self._runtime.image(job.image, job.image_id)
        version = version_of(job.command, [step.name for step in job.steps], job.image, image.id)
        pinned = replace(job, image_id=image.id, pipeline_version=version)
        return Execution(
            pinned,
            workspace,
            RanAs(self._runtime.version, image.digest),
            lambda out: Container(self._runtime, image, pinned, workspace, gpus=gpus, output=out),
        )

    @staticmethod
    def end_processes(jobs: Path, job_id: str = "") -> int:
        """End the processes of an earlier run: of one job, or of all in the folder of jobs.

        Returns how many there were.
        """
        return end_groups(jobs, job_id or "*") + end_processes(f"{jobs / job_id}{os.sep}")

    def end_container(self, job_id: str) -> int:
        """End the container of a job of an earlier run; return how many there were."""
        return self._runtime.remove_of(job_id)


class Execution:
    """A pipeline that runs, from its start to the end of all of it."""

    def __init__(self, job: Job, workspace: Workspace, ran_as: RanAs, launch: Launch) -> None:
        self.job = job
        self._folder = workspace.folder
        self._ran_as = ran_as
        self._interrupted = ""
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._progress = ProgressReader(workspace.progress)
        self._ended: Ended | None = None
        self._log = LogPump(LogWriter(workspace.log, job.rules.log_size), job.name)
        if job.attempts > 1:
            # The attempts follow one another in one log.
            self._log.note(f"--- attempt {job.attempts} ---\n")
        if workspace.part:
            self._log.note(f"--- item {int(workspace.part)} ---\n")
        try:
            with self._log.input() as output:
                self._program = launch(output)
        except BaseException:
            self._log.finish()
            raise
        self._waiter = threading.Thread(target=self._reap, name=f"wait {job.name}", daemon=True)
        try:
            # At once, too: all of a short pipeline's life may lie before the first pause is over.
            self._program.measure()
            self._waiter.start()
        except BaseException:
            # Nobody else would: of it, nothing is known outside.
            self._program.kill()
            self._program.wait()
            self._log.finish()
            raise

    def wait(self, progress: Callable[[Mapping[str, float]], None]) -> Ended:
        """Wait for the end, as long as the job lets it; tell the steps' progress meanwhile.

        Whatever happens here, all of it has ended when this returns or raises.
        """
        try:
            self._watch(progress)
        except BaseException:
            self._program.kill()
            raise
        finally:
            self._waiter.join()
        if self._ended is None:
            raise RuntimeError("the pipeline was waited for, but its end is not known")
        return self._ended

    def _watch(self, progress: Callable[[Mapping[str, float]], None]) -> None:
        pause = FIRST_TICK_SECONDS
        while not self._done.wait(pause):
            pause = min(pause * 2, TICK_SECONDS)
            self._program.measure()
            self._tell(progress)
            if self._is_over(self.job.timeout, self._started):
                self.interrupt(Reason.RUN_TIMEOUT)
            elif self._is_over(self.job.rules.silence_timeout, self._heard_at):
                self.interrupt(Reason.SILENCE_TIMEOUT)
        self._tell(progress)

    def _tell(self, progress: Callable[[Mapping[str, float]], None]) -> None:
        reports = self._progress.news()
        if reports:
            progress(reports)

    @staticmethod
    def _is_over(limit: float | None, since: float) -> bool:
        return limit is not None and time.monotonic() - since > limit

    @property
    def _heard_at(self) -> float:
        return max(self._log.heard_at, self._progress.heard_at)

    def interrupt(self, why: str) -> None:
        """End all of it: TERM, and KILL when it has not ended in time."""
        with self._lock:
            if self._interrupted or self._done.is_set():
                return
            self._interrupted = why
        threading.Thread(
            target=self._end, args=(why,), name=f"end {self.job.name}", daemon=True
        ).start()

    def _end(self, why: str) -> None:
        if why in (Reason.DRAIN, Reason.LOST):
            self._program.leave()
        else:
            self._program.ask()
        if not self._done.wait(GRACE_SECONDS):
            self._program.kill()

    def ask(self) -> None:
        """Ask it to end by TERM, and leave it at that."""
        self._program.ask()

    def _reap(self) -> None:
        try:
            end = self._program.wait()
            self._log.finish()
            with self._lock:
                self._ended = self._ending(end)
        finally:
            # Whatever happens: who waits must not wait for ever.
            self._done.set()

    def _ending(self, end: Exit) -> Ended:
        used = ResourceUse(
            cpu_seconds=end.cpu_seconds,
            max_rss_bytes=end.max_rss_bytes,
            wall_seconds=round(time.monotonic() - self._started, 3),
        )
        told = end.told
        # What it has said of that may have found no room either.
        if end.code and is_full(self._folder):
            told = f"{told}, and its disk was full: make room on that of storage.path, and retry it"
        return Ended(
            end.code,
            self._interrupted,
            used,
            told,
            end.reason,
            self._ran_as,
            error=end.error,
            answer=end.answer,
            ran_at=end.ran_at,
        )
