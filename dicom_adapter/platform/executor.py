"""Runs one pipeline as a process of this machine, in a process group of its own."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dicom_adapter.lifecycle import Reason
from dicom_adapter.model import Job, ResourceUse
from dicom_adapter.platform.joblog import LogPump, LogWriter
from dicom_adapter.platform.workspace import Workspace

# From TERM to KILL.
# A cancelled job is to be gone within five seconds, whatever its processes do.
GRACE_SECONDS = 3.0
# How often a running pipeline's progress is read and its memory measured; at first more often.
FIRST_TICK_SECONDS = 0.05
TICK_SECONDS = 0.5
LONGEST_PROGRESS_LINE = 4096
PROGRESS_CHUNK = 1024 * 1024
# The kernel tells nobody when a process that is not our child has ended.
POLL_SECONDS = 0.01

MANIFEST_VARIABLE = "DICOM_ADAPTER_JOB"


@dataclass(frozen=True)
class Ended:
    """How a process ended; `interrupted` says why we ended it, empty when it ended by itself."""

    exit_code: int
    interrupted: str
    used: ResourceUse


class Execution:
    """A pipeline's process group, from its start to the end of its last process."""

    def __init__(self, job: Job, workspace: Workspace, gpus: Sequence[int]) -> None:
        self._job = job
        self._gpus = gpus
        self._workspace = workspace
        self._interrupted = ""
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._progress_offset = 0
        self._progress_at = self._started
        self._max_rss = 0
        self._ended: Ended | None = None
        self._log = LogPump(LogWriter(workspace.log, job.rules.log_size), job.name)
        if job.attempts > 1:
            # The attempts follow one another in one log.
            self._log.note(f"--- attempt {job.attempts} ---\n")
        try:
            self._process = self._start()
        except BaseException:
            self._log.finish()
            raise
        # At once, too: all of a short pipeline's life may lie before the first pause is over.
        self._measure()
        self._waiter = threading.Thread(target=self._reap, name=f"wait {job.name}", daemon=True)
        self._waiter.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.input() as output:
            return subprocess.Popen(  # noqa: S603 - the administrator's own command
                _arguments(self._job, self._workspace),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._workspace.work,
                env=environment(self._workspace, self._gpus),
                start_new_session=True,
                umask=0o077,
            )

    def wait(self, progress: Callable[[Mapping[str, float]], None]) -> Ended:
        """Wait for the end, as long as the job lets it; tell the steps' progress meanwhile.

        Whatever happens here, the processes have ended when this returns or raises.
        """
        try:
            self._watch(progress)
        except BaseException:
            self._kill()
            raise
        finally:
            self._waiter.join()
        if self._ended is None:
            raise RuntimeError("the process was waited for, but its end is not known")
        return self._ended

    def _watch(self, progress: Callable[[Mapping[str, float]], None]) -> None:
        pause = FIRST_TICK_SECONDS
        while not self._done.wait(pause):
            pause = min(pause * 2, TICK_SECONDS)
            self._measure()
            self._tell(progress)
            if self._is_over(self._job.timeout, self._started):
                self.interrupt(Reason.RUN_TIMEOUT)
            elif self._is_over(self._job.rules.silence_timeout, self._heard_at):
                self.interrupt(Reason.SILENCE_TIMEOUT)
        self._tell(progress)

    @staticmethod
    def _is_over(limit: float | None, since: float) -> bool:
        return limit is not None and time.monotonic() - since > limit

    @property
    def _heard_at(self) -> float:
        return max(self._log.heard_at, self._progress_at)

    def interrupt(self, why: str) -> None:
        """End the whole process group: TERM, and KILL when it has not ended in time."""
        with self._lock:
            if self._interrupted or self._done.is_set():
                return
            self._interrupted = why
        self._signal(signal.SIGTERM)
        killer = threading.Timer(GRACE_SECONDS, self._kill)
        killer.daemon = True
        killer.start()

    def ask(self) -> None:
        """Ask the process group to end by TERM, and leave it at that."""
        self._signal(signal.SIGTERM)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            # Once it is reaped, its number may be another's.
            if self._process.returncode is None:
                _signal_group(self._process.pid, number)

    def _reap(self) -> None:
        # Not reaped yet, only waited for: its number, which is its group's, is still its own.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        # What it left behind must neither write on nor hold resources.
        self._kill()
        with self._lock:
            # Our own wait, not Popen's: it tells what the process and its children have used.
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
        end_processes(str(self._workspace.manifest))
        self._log.finish()
        with self._lock:
            self._ended = Ended(
                exit_code=self._process.returncode,
                interrupted=self._interrupted,
                used=ResourceUse(
                    cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
                    max_rss_bytes=self._max_rss,
                    wall_seconds=round(time.monotonic() - self._started, 3),
                ),
            )
            self._done.set()

    def _measure(self) -> None:
        # Not ru_maxrss: Linux counts the service's own memory in it, as it was before the exec.
        try:
            process = psutil.Process(self._process.pid)
            tree = [process, *process.children(recursive=True)]
            resident = sum(member.memory_info().rss for member in tree)
        except psutil.NoSuchProcess:
            # One of them has just ended: the next measurement sees the rest.
            return
        self._max_rss = max(self._max_rss, resident)

    def _tell(self, progress: Callable[[Mapping[str, float]], None]) -> None:
        reports: dict[str, float] = {}
        for lines in self._new_lines():
            for step, fraction in _steps(lines):
                # Of many reports the last counts, in the order of the last ones.
                reports.pop(step, None)
                reports[step] = fraction
        if reports:
            progress(reports)

    def _new_lines(self) -> Iterator[bytes]:
        try:
            # The file is the pipeline's: it may be gone, or be a pipe that would block us.
            descriptor = os.open(
                self._workspace.progress, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            return
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_size < self._progress_offset:
                # Written anew instead of appended to.
                self._progress_offset = 0
            while chunk := os.pread(descriptor, PROGRESS_CHUNK, self._progress_offset):
                # A line that is still being written is read the next time.
                whole = chunk[: chunk.rfind(b"\n") + 1]
                if not whole and len(chunk) < PROGRESS_CHUNK:
                    return
                self._progress_offset += len(whole or chunk)
                self._progress_at = time.monotonic()
                yield whole
        finally:
            os.close(descriptor)


def environment(workspace: Workspace, gpus: Sequence[int]) -> Mapping[str, str]:
    """Return what a pipeline sees: nothing of the service's own environment.

    `python` in a command is the interpreter that the service runs in.
    """
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", os.defpath]),
        "HOME": str(workspace.work),
        "TMPDIR": str(workspace.work),
        "LANG": "C.UTF-8",
        # Empty: none at all, instead of all that there are.
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "DICOM_ADAPTER_INPUT": str(workspace.input),
        "DICOM_ADAPTER_OUTPUT": str(workspace.staging),
        "DICOM_ADAPTER_PROGRESS": str(workspace.progress),
        MANIFEST_VARIABLE: str(workspace.manifest),
        # What a MONAI application package looks for.
        "HOLOSCAN_INPUT_PATH": str(workspace.input),
        "HOLOSCAN_OUTPUT_PATH": str(workspace.staging),
    }


def end_processes(manifest: str) -> int:
    """Kill every process that was started for a job, or for any job below a folder that ends in /.

    They are known by the manifest that their environment names, which their children inherit: so
    those are found, too, that have left the process group. Returns how many there were.
    """
    ended = 0
    # Again until none is left: one of them may have been starting another.
    while found := [process for process in psutil.process_iter() if _is_of(process, manifest)]:
        ended += len(found)
        for process in found:
            _kill_process(process)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(map(_lives, found)):
            if time.monotonic() > deadline:
                return ended
            time.sleep(POLL_SECONDS)
    return ended


def _is_of(process: psutil.Process, manifest: str) -> bool:
    named = _manifest_of(process)
    return named.startswith(manifest) if manifest.endswith(os.sep) else named == manifest


def _kill_process(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        # Gone meanwhile.
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _manifest_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(MANIFEST_VARIABLE, "")
    except (psutil.Error, OSError):
        # Another user's, a kernel thread, or gone meanwhile: none of ours.
        return ""


def _arguments(job: Job, workspace: Workspace) -> list[str]:
    places = {
        "input": str(workspace.input),
        "output": str(workspace.staging),
        "job": str(workspace.manifest),
        "progress": str(workspace.progress),
    }
    return [argument.format(**places) for argument in job.command]


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        # Every process of the group has ended already.
        return


def _steps(lines: bytes) -> Iterator[tuple[str, float]]:
    for line in lines.splitlines():
        try:
            report = json.loads(line[:LONGEST_PROGRESS_LINE])
            step, fraction = str(report["step"]), float(report["progress"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            # A pipeline's report is a courtesy: a malformed line costs only itself.
            continue
        if 0 <= fraction <= 1:
            yield step, fraction
