"""Runs a command as a process of this machine, in a process group of its own."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from dicom_adapter.model import Job
from dicom_adapter.platform.cgroup import GRACE_SECONDS, POLL_SECONDS, ControlGroup
from dicom_adapter.platform.program import (
    MANIFEST_VARIABLE,
    CannotStartError,
    Exit,
    Places,
    attempt_name,
    exit_in_words,
    gpu_environment,
    job_of,
)
from dicom_adapter.platform.workspace import Workspace

# What the kernel reads of a script's first line.
_LONGEST_FIRST_LINE = 256


class HostProcess:
    """A pipeline's process group, from its start to the end of its last process."""

    def __init__(self, job: Job, workspace: Workspace, gpus: Sequence[int], output: int) -> None:
        """Start it, and have it write to a descriptor.

        Raises:
            CannotStartError: the command is not there, or cannot be run.
        """
        self._manifest = str(workspace.manifest)
        name = attempt_name(job.id, job.attempts, workspace.part)
        self._lock = threading.Lock()
        self._max_rss = 0
        places = _places(workspace)
        command, environment = places.fill(job.command), _environment(places, gpus)
        self._group = None
        # What is none is started as it is: then the error says what is wrong with it.
        if _is_program(command[0], workspace.work, environment["PATH"]):
            self._group = ControlGroup.make(name)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the administrator's own command
                command if self._group is None else self._group.entered(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=workspace.work,
                env=environment,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            if self._group is not None:
                self._group.remove()
            raise CannotStartError(
                f"the command '{job.command[0]}' cannot be started: {error.strerror}"
                f"{_cure(error, workspace.work / job.command[0])}"
            ) from error

    def ask(self) -> None:
        """Ask the process group to end, by TERM."""
        self._signal(signal.SIGTERM)

    def leave(self) -> None:
        """As `ask`: another attempt begins anew."""
        self.ask()

    def kill(self) -> None:
        """Kill all of it, in the process group or not."""
        self._signal(signal.SIGKILL)
        if self._group is not None:
            self._group.kill()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            # Once it is reaped, its number may be another's.
            if self._process.returncode is None:
                _signal_group(self._process.pid, number)

    def measure(self) -> None:
        """Look at the memory of the process and its children."""
        # Not ru_maxrss: Linux counts the service's own memory in it, as it was before the exec.
        try:
            resident = sum(member.memory_info().rss for member in self._members())
        except psutil.NoSuchProcess:
            # One of them has just ended: the next measurement sees the rest.
            return
        self._max_rss = max(self._max_rss, resident)

    def _members(self) -> list[psutil.Process]:
        entered = [] if self._group is None else self._group.members()
        if entered:
            return [psutil.Process(number) for number in entered]
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def wait(self) -> Exit:
        """Wait for the end of the process, and kill what it has left behind."""
        # Not reaped yet, only waited for: its number, which is its group's, is still its own.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        # What it left behind must neither write on nor hold resources.
        self.kill()
        with self._lock:
            # Our own wait, not Popen's: it tells what the process and its children have used.
            _, status, usage = os.wait4(self._process.pid, 0)
            code = self._process.returncode = os.waitstatus_to_exitcode(status)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        if self._group is not None:
            self._group.end()
            # Of those, too, that nobody has waited for.
            cpu_seconds = max(cpu_seconds, self._group.cpu_seconds())
            self._group.remove()
        end_processes(self._manifest)
        return Exit(code, exit_in_words(code), round(cpu_seconds, 3), self._max_rss)


def _is_program(name: str, folder: Path, path: str) -> bool:
    found = shutil.which(str(folder / name) if os.sep in name else name, path=path)
    if found is None:
        return False
    try:
        with Path(found).open("rb") as file:
            start = file.readline(_LONGEST_FIRST_LINE)
    except OSError:
        return False
    # A shell would read anything else as a script of its own, and tell of a missing interpreter as
    # of its own.
    words = start[2:].split() if start.startswith(b"#!") else []
    return start.startswith(b"\x7fELF") or (bool(words) and Path(os.fsdecode(words[0])).exists())


def _cure(error: OSError, program: Path) -> str:
    if error.errno == errno.ENOENT and program.exists():
        return ": its first line names an interpreter that is not there"
    if error.errno == errno.ENOEXEC:
        return ": a script has to begin with #! and its interpreter, as #!/bin/sh"
    return ""


def _places(workspace: Workspace) -> Places:
    return Places(
        input=str(workspace.input),
        output=str(workspace.staging),
        job=str(workspace.manifest),
        progress=str(workspace.progress),
        work=str(workspace.work),
    )


def _environment(places: Places, gpus: Sequence[int]) -> Mapping[str, str]:
    """Return what a command sees: nothing of the service's own environment.

    `python` in a command is the interpreter that the service runs in.
    """
    return {**places.environment(), **gpu_environment(gpus), "PATH": search_path()}


def search_path() -> str:
    """Return where a command's program is looked for."""
    return os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", os.defpath])


def end_groups(jobs: Path, job_id: str = "*") -> int:
    """End what an earlier run has left of a job, or of all that have a folder among `jobs`.

    Returns how many processes there were.
    """
    found = ControlGroup.named(attempt_name(job_id, "*"))
    # Other services of this machine may be in the same group as this one.
    own = [group for name, group in found.items() if (jobs / job_of(name)).exists()]
    ended = sum(group.end() for group in own)
    for group in own:
        group.remove()
    return ended


def end_processes(manifest: str) -> int:
    """Kill every process that was started for a job, or for any job below a folder that ends in /.

    They are known by the manifest that their environment names, which their children inherit: so
    those are found, too, that have left the process group. Returns how many there were.
    """
    ended = 0
    # Again until none is left: one of them may have been starting another.
    while found := [process for process in _naming(manifest) if _is_of(process, manifest)]:
        ended += len(found)
        for process in found:
            _kill_process(process)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(map(_lives, found)):
            if time.monotonic() > deadline:
                return ended
            time.sleep(POLL_SECONDS)
    return ended


def _naming(manifest: str) -> Iterator[psutil.Process]:
    """Yield the processes in whose environment the manifest is, maybe as a part of another."""
    wanted = f"{MANIFEST_VARIABLE}={manifest}".encode()
    for number in psutil.pids():
        # Read as it is first: to look at every process of a machine closely takes four times as
        # long, and this is done for each job.
        with suppress(OSError, psutil.Error):
            if wanted in Path("/proc", str(number), "environ").read_bytes():
                yield psutil.Process(number)


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


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        # Every process of the group has ended already.
        return
