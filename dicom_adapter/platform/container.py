"""Runs a pipeline's image as a container: without network, read-only, unprivileged, limited."""

import os
import resource
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

from dicom_adapter.config import units
from dicom_adapter.lifecycle import Reason
from dicom_adapter.model import Job
from dicom_adapter.platform.cgroup import Meter
from dicom_adapter.platform.ownership import User, container_user, hand_over, take_back
from dicom_adapter.platform.program import (
    CannotStartError,
    Exit,
    Places,
    attempt_name,
    exit_in_words,
    gpu_environment,
)
from dicom_adapter.platform.runtime import JOB_LABEL, ContainerRuntime, Image, State
from dicom_adapter.platform.workspace import Workspace

#: The same in every container.
INSIDE = Places(
    input="/dicom-adapter/input",
    output="/dicom-adapter/output",
    job="/dicom-adapter/job.json",
    progress="/dicom-adapter/progress.jsonl",
    work="/dicom-adapter/work",
)
#: Processes and threads of one container; and the most that runtimes let be set without being root.
MOST_PROCESSES = 4096
MOST_OF_A_USER = 32768
MOST_FILES = 1048576
# What Podman's monitor makes in the folder that it was started in.
OUT_OF_MEMORY_FILE = "oom"
# How often it is looked whether a container that was started runs.
LOOK_SECONDS = 0.05


class Container:
    """A container of a pipeline's image, from its making until it is removed."""

    def __init__(
        self,
        runtime: ContainerRuntime,
        image: Image,
        job: Job,
        workspace: Workspace,
        *,
        gpus: Sequence[int],
        output: int,
    ) -> None:
        """Make and start it, and have it write to a descriptor.

        Raises:
            CannotStartError: it cannot be made.
        """
        self._runtime, self._job, self._workspace = runtime, job, workspace
        self._name = attempt_name(job.id, job.attempts, workspace.part)
        self._user = container_user()
        self._meter: Meter | None = None
        self._ended = threading.Event()
        hand_over(workspace, self._user)
        options = _options(runtime, job, workspace, self._user, gpus)
        runtime.create(self._name, image, INSIDE.fill(job.command), *options)
        try:
            # Its death does not end the container, nor do signals that the service gets.
            self._client = subprocess.Popen(  # noqa: S603 - the runtime of the configuration
                runtime.attached(self._name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=workspace.folder,
                start_new_session=True,
            )
        except OSError as error:
            runtime.remove(self._name)
            raise CannotStartError(f"{runtime.name} cannot be started: {error.strerror}") from error
        self._watcher = threading.Thread(target=self._watch, name=f"watch {job.name}", daemon=True)
        self._watcher.start()

    def ask(self) -> None:
        """Ask the container's first process to end, by TERM."""
        self._runtime.signal(self._name, "TERM")

    def leave(self) -> None:
        """As `ask`: another attempt begins anew."""
        self.ask()

    def kill(self) -> None:
        """End the container, also one that has not begun to run."""
        if not self._runtime.signal(self._name, "KILL"):
            self._runtime.remove(self._name)
            # Whatever it waits for.
            self._client.kill()

    def measure(self) -> None:
        """Look at what its control group has used."""
        if self._meter is not None:
            self._meter.measure()

    def _watch(self) -> None:
        """Measure once more when its first process ends: a moment later its group is gone."""
        while not (process := self._process()):
            if self._ended.wait(LOOK_SECONDS):
                return
        try:
            ending = os.pidfd_open(process)
            self._meter = Meter(process)
        except OSError:
            # It has ended meanwhile.
            return
        try:
            self._meter.measure()
            select.select([ending], [], [])
            self._meter.measure()
        finally:
            os.close(ending)

    def _process(self) -> int:
        state = self._runtime.state(self._name)
        return 0 if state is None else state.process

    def wait(self) -> Exit:
        """Wait for its end, remove it, and have what it wrote belong to the service."""
        code = self._client.wait()
        state = self._runtime.state(self._name)
        self._runtime.remove(self._name)
        self._ended.set()
        self._watcher.join()
        (self._workspace.folder / OUT_OF_MEMORY_FILE).unlink(missing_ok=True)
        take_back(self._workspace, self._user)
        return self._exit(code, state)

    def _exit(self, code: int, state: State | None) -> Exit:
        meter = self._meter
        used = (0.0, 0) if meter is None else (round(meter.cpu_seconds, 3), meter.max_bytes)
        if state is None:
            # Somebody has removed it: what is known is what its client has said.
            return Exit(code, exit_in_words(code), *used)
        if state.process:
            told = f"the {self._runtime.name} that held it ended, so the container was removed"
            return Exit(code or -signal.SIGKILL, told, *used)
        if not state.was_started:
            told = f"{self._runtime.name} could not start the container"
            return Exit(code or state.exit_code or 1, told, *used)
        if state.exit_code and (state.out_of_memory or (meter and meter.out_of_memory)):
            limit = units.format_size(self._job.requested.memory)
            told = f"it needed more than its resources.memory of {limit}, and the kernel ended it"
            return Exit(state.exit_code, told, *used, Reason.OUT_OF_MEMORY)
        return Exit(state.exit_code, exit_in_words(state.exit_code), *used)


def _options(
    runtime: ContainerRuntime, job: Job, workspace: Workspace, user: User, gpus: Sequence[int]
) -> Iterator[str]:
    yield f"--label={JOB_LABEL}={job.id}"
    yield from ("--network=none", "--read-only", "--cap-drop=all", "--no-healthcheck")
    yield from ("--security-opt=no-new-privileges", "--security-opt=label=disable")
    yield from runtime.user(user)
    yield from _limits(job)
    yield from runtime.gpus(gpus)
    yield from _mounts(workspace)
    variables = {
        **INSIDE.environment(),
        # Inside there are no others, and so they are counted from 0.
        **gpu_environment(range(len(gpus))),
        **runtime.gpu_variables(gpus),
    }
    yield from (f"--env={name}={value}" for name, value in variables.items())


def _limits(job: Job) -> Iterator[str]:
    memory = job.requested.memory
    # As much swap as memory: none beyond it.
    yield from (f"--memory={memory}", f"--memory-swap={memory}", f"--cpus={job.requested.cpus}")
    yield from (f"--pids-limit={MOST_PROCESSES}", f"--shm-size={memory // 2}")
    # All of them count as the container's memory.
    for folder in ("/tmp", "/var/tmp", "/run"):  # noqa: S108 - the container's own
        yield f"--tmpfs={folder}:rw,nosuid,nodev,mode=1777,size={memory // 2}"
    # What runtimes set by themselves may be more than the service is let have.
    yield f"--ulimit=nofile={_limit(resource.RLIMIT_NOFILE, MOST_FILES)}"
    yield f"--ulimit=nproc={_limit(resource.RLIMIT_NPROC, MOST_OF_A_USER)}"


def _limit(kind: int, most: int) -> str:
    _, hard = resource.getrlimit(kind)
    number = most if hard == resource.RLIM_INFINITY else min(hard, most)
    return f"{number}:{number}"


def _mounts(workspace: Workspace) -> Iterator[str]:
    places = (
        (workspace.input, INSIDE.input, ",readonly"),
        (workspace.manifest, INSIDE.job, ",readonly"),
        (workspace.progress, INSIDE.progress, ""),
        (workspace.work, INSIDE.work, ""),
        (workspace.staging, INSIDE.output, ""),
    )
    if "," in str(workspace.folder):
        raise CannotStartError(
            "storage.path has a comma in it, and so cannot be mounted into a container: move it"
        )
    for outside, inside, mode in places:
        yield f"--mount=type=bind,source={outside},destination={inside}{mode}"
