"""Hands one item to another platform, and makes that platform's answer the item's own."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from dicom_adapter import files
from dicom_adapter.errors import (
    DicomAdapterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    WrongStateError,
)
from dicom_adapter.ledger.remotes import Handed
from dicom_adapter.lifecycle import TERMINAL, JobState, Reason
from dicom_adapter.model import (
    Job,
    JobOutput,
    RemoteJob,
    StepState,
)
from dicom_adapter.platform.line import CutError, Line
from dicom_adapter.platform.package import package, submit
from dicom_adapter.platform.program import CannotStartError, Exit, RanAt
from dicom_adapter.platform.remotes import Remotes
from dicom_adapter.platform.workspace import Workspace
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.fetch import ForeignOutputError, fetch_output

# A watch that says nothing for so long is begun anew: so a connection that died is noticed.
WATCH_SECONDS = 60.0
# Between two watches, and so between two looks where there is no stream to spare.
LOOK_SECONDS = 1.0
# After the end of a job, so long its log is waited for.
LOG_SECONDS = 10.0
LONGEST_LOG_PAUSE_SECONDS = 2.0
#: Refusals that a new token, or a moment, may end, once the other platform has the item.
PASSING = (UnauthenticatedError, PermissionDeniedError)
# What a program is said to have ended with that nobody waits for any more.
LEFT_CODE = -signal.SIGTERM

log = structlog.get_logger()


class RemoteProgram:
    """One item at another platform, from its handing over to that platform's answer.

    Its end can only be asked for. Where nobody waits any more, what is there stays in the ledger:
    the job's next attempt takes it on, or it is ended as a leftover.
    """

    def __init__(self, job: Job, workspace: Workspace, remotes: Remotes, output: int) -> None:
        """Name what is handed over, and the descriptor that is written to.

        Raises:
            CannotStartError: the executor is not configured any more.
        """
        self._job, self._workspace, self._remotes = job, workspace, remotes
        self._executor = job.rules.executor
        self._address = remotes.executor(self._executor).address
        self._line = Line(lambda: remotes.connect(self._executor), self._note_silence)
        self._request = Line(lambda: remotes.connect(self._executor), self._note_silence)
        self._lock = threading.Lock()
        self._asked = False
        self._remote_id = ""
        self._handed: Handed | None = None
        self._is_silent = False
        self._steps: dict[str, float] = {}
        self._voice = _Voice(output)

    # What is asked of it

    def ask(self) -> None:
        """Send a cancellation request; what was not handed over yet never is."""
        with self._lock:
            if self._asked:
                return
            self._asked = True
            is_there = bool(self._remote_id)
        if is_there:
            name = f"cancel {self._job.name}"
            threading.Thread(target=self._request_end, name=name, daemon=True).start()
        else:
            self._line.cut()

    def _request_end(self) -> None:
        why = f"{self._job.name} was cancelled where it came from"
        try:
            self._request.call(lambda client: client.cancel(self._remote_id, why), *PASSING)
        except DicomAdapterError:
            # It has ended, or nobody waits for it any more: its watch tells.
            return
        self._say("its end was asked for")

    def leave(self) -> None:
        """Wait no longer: the next attempt takes on what is there."""
        self._line.cut()

    def kill(self) -> None:
        """Wait no longer."""
        self._line.cut()

    def measure(self) -> None:
        """Look at nothing: the other platform tells with the end what it has used."""

    # Its life

    def wait(self) -> Exit:
        """Hand it over and wait for the answer, or until nobody wants one any more."""
        try:
            return self._live()
        except CutError:
            return self._left()
        except DicomAdapterError as error:
            return self._refused(error)
        except OSError as error:
            told = f"an input cannot be read: {error.strerror}"
            return Exit(1, told, 0.0, 0, Reason.INPUT_ERROR, told)
        finally:
            for line in (self._line, self._request):
                line.cut()
            if self._handed is not None:
                self._remotes.release(self._handed)
            self._voice.close()

    def _live(self) -> Exit:
        handed = self._line.call(lambda _: self._remotes.take(self._job, self._workspace))
        self._handed = handed
        self._hand_over(handed)
        with self._following_log():
            remote = self._watch()
        made = self._answer(remote)
        self._forget()
        return made

    def _hand_over(self, handed: Handed) -> None:
        remote_id = handed.remote_id
        if not remote_id:
            request, paths = package(self._job, self._workspace, handed.request_id)
            # WrongStateError: an upload was reclaimed before the job could be made of it.
            remote_id = self._line.call(
                lambda client: submit(client, request, paths), WrongStateError
            )
            self._line.call(lambda _: self._remotes.accepted(handed, remote_id))
        with self._lock:
            self._remote_id = remote_id
            if self._asked:
                raise CutError

    def _watch(self) -> RemoteJob:
        remote = self._line.call(self._look, *PASSING)
        self._say(f"it is {remote.name} there, by the id {remote.id}")
        while remote.state not in TERMINAL:
            remote = self._line.call(self._see, *PASSING)
            if remote.state not in TERMINAL:
                self._line.rest(LOOK_SECONDS)
        return remote

    def _look(self, client: Client) -> RemoteJob:
        return self._shown(client.job(self._remote_id))

    def _see(self, client: Client) -> RemoteJob:
        """Return the job once it has ended, or as it was last seen after a while."""
        last = None
        # Where it has no stream to spare, it is looked at all the same.
        with suppress(UnavailableError):
            for change in client.changes(self._remote_id, WATCH_SECONDS):
                last = self._shown(change)
        return last or self._look(client)

    def _shown(self, remote: RemoteJob) -> RemoteJob:
        """Tell of a job's steps here as a pipeline does."""
        self._note_answer()
        news = {
            step.name: step.progress for step in remote.steps if step.state != StepState.WAITING
        }
        lines = [
            json.dumps({"step": name, "progress": progress})
            for name, progress in news.items()
            if self._steps.get(name) != progress
        ]
        self._steps = news
        if lines:
            # A courtesy to those who watch: what was handed over goes on without it.
            with suppress(OSError), self._workspace.progress.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        return remote

    @contextmanager
    def _following_log(self) -> Iterator[None]:
        """Write the log there into the log here, while the block goes on and until it is whole."""
        line = Line(
            lambda: self._remotes.connect(self._executor),
            lambda _: None,
            LONGEST_LOG_PAUSE_SECONDS,
        )
        name = f"log of {self._job.name}"
        thread = threading.Thread(target=self._follow_log, args=(line,), name=name, daemon=True)
        thread.start()
        try:
            yield
            thread.join(LOG_SECONDS)
        finally:
            line.cut()
            thread.join()

    def _follow_log(self, line: Line) -> None:
        written = 0

        def follow(client: Client) -> None:
            nonlocal written
            # After a break it comes from its begin again.
            known = written
            for chunk in client.log(self._remote_id):
                news, known = chunk[known:], max(0, known - len(chunk))
                self._voice.say(news)
                written += len(news)

        try:
            line.call(follow, *PASSING)
        except DicomAdapterError as error:
            if not isinstance(error, CutError):
                self._say(f"its log cannot be read: {error}")

    # How it ends

    def _answer(self, remote: RemoteJob) -> Exit:
        ran_at = RanAt(
            self._executor,
            self._address,
            self._job.rules.remote_pipeline,
            remote.pipeline_version,
            remote.id,
            remote.name,
        )
        if remote.state == JobState.FINISHED:
            return self._fetched(remote, ran_at)
        used = _used(remote)
        code = remote.exit_code or 1
        if remote.state == JobState.CANCELLED:
            told = f"it was cancelled at {self._address}"
            return Exit(code, told, *used, answer=JobState.CANCELLED, ran_at=ran_at)
        reason = Reason(remote.reason) if remote.reason in set(Reason) else Reason.PIPELINE_ERROR
        told = f"it is {remote.state} at {self._address} with the reason {reason}"
        error = f"at {self._address}: {remote.error or told}"
        return Exit(code, told, *used, reason, error, JobState.FAILED, ran_at)

    def _fetched(self, remote: RemoteJob, ran_at: RanAt) -> Exit:
        used = _used(remote)
        try:
            for output in remote.outputs:
                self._fetch(output)
        except (ForeignOutputError, OSError) as error:
            problem = error.strerror if isinstance(error, OSError) else str(error)
            told = f"its outputs at {self._address} cannot be taken over: {problem}"
            reason = Reason.OUTPUT_INVALID
            return Exit(1, told, *used, reason, told, JobState.FAILED, ran_at)
        return Exit(0, "", *used, answer=JobState.FINISHED, ran_at=ran_at)

    def _fetch(self, output: JobOutput) -> None:
        while True:
            try:
                self._line.call(
                    lambda client: fetch_output(
                        client, self._remote_id, output, self._workspace.staging
                    ),
                    *PASSING,
                )
            except OSError as error:
                if error.errno not in files.NO_ROOM:
                    raise
                self._note_silence(f"no room for an output: {error.strerror}")
                self._line.rest(files.NO_ROOM_PAUSE_SECONDS)
            else:
                self._note_answer()
                return

    def _left(self) -> Exit:
        with self._lock:
            asked, is_there = self._asked, bool(self._remote_id)
        if not asked:
            return Exit(LEFT_CODE, "its next attempt takes it on", 0.0, 0)
        if self._handed is not None:
            with suppress(UnavailableError):
                self._remotes.unwant(self._handed)
        if is_there:
            return Exit(LEFT_CODE, f"{self._address} has not ended it yet", 0.0, 0)
        told = f"it was cancelled before {self._address} had taken it"
        return Exit(LEFT_CODE, told, 0.0, 0, answer=JobState.CANCELLED)

    def _refused(self, error: DicomAdapterError) -> Exit:
        with self._lock:
            is_there = bool(self._remote_id)
        if not (is_there and isinstance(error, CannotStartError)):
            self._forget()
        told = f"at {self._address}: {error}{self._cure(error)}"
        answer = JobState.FAILED if is_there else None
        return Exit(1, f"{self._address} refuses it", 0.0, 0, error=told, answer=answer)

    def _cure(self, error: DicomAdapterError) -> str:
        if isinstance(error, PASSING):
            create = "`dicom-adapter tokens create --role operator` makes one there"
            return f"; see executors.{self._executor}.token: {create}"
        if isinstance(error, NotFoundError) and not self._remote_id:
            return f"; see pipelines.{self._job.pipeline}.remote_pipeline"
        return ""

    def _forget(self) -> None:
        if self._handed is not None:
            # Where the ledger cannot be written now, it is found to have ended later.
            with suppress(UnavailableError):
                self._remotes.forget(self._handed)

    # What is said of it

    def _note_silence(self, why: str) -> None:
        if self._is_silent:
            return
        self._is_silent = True
        self._say(f"tried again until it succeeds: {why}")
        log.warning(
            "another platform does not answer as it should; it is tried again",
            action="remote.unavailable",
            job=self._job.name,
            executor=self._executor,
            address=self._address,
            why=why,
        )

    def _note_answer(self) -> None:
        if self._is_silent:
            self._is_silent = False
            self._say("it answers again")
            log.info("another platform answers again", action="remote.available",
                     job=self._job.name, executor=self._executor)  # fmt: skip

    def _say(self, text: str) -> None:
        self._voice.say(f"--- {self._address}: {text} ---\n".encode())


class _Voice:
    """A descriptor that several threads write to, until it is closed."""

    def __init__(self, output: int) -> None:
        self._lock = threading.Lock()
        self._file = os.fdopen(os.dup(output), "wb", buffering=0)

    def say(self, data: bytes) -> None:
        """Write; nothing any more once it is closed."""
        rest = memoryview(data)
        with self._lock, suppress(OSError):
            while rest and not self._file.closed:
                rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._file.close()


def _used(remote: RemoteJob) -> tuple[float, int]:
    used = remote.used
    return (0.0, 0) if used is None else (used.cpu_seconds, used.max_rss_bytes)
