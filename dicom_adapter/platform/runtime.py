"""Talks to Podman or Docker by its command line, which is the same for most of what is needed."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog

from dicom_adapter.config import container_program
from dicom_adapter.platform.ownership import User
from dicom_adapter.platform.program import CannotStartError

# How long a runtime may take to answer, and to make a container of a large image.
ANSWER_SECONDS = 30.0
CREATE_SECONDS = 600.0
# What is to end has a few seconds for it, whatever becomes of its signal.
SIGNAL_SECONDS = 3.0
LONGEST_ANSWER = 300

JOB_LABEL = "dicom-adapter.job"

#: What is said where an image is not there, in small letters.
_MISSING = ("no such image", "image not known", "no such object")

#: What is said where limits are not kept, though all else goes well.
_NO_LIMIT = ("limits are not supported and ignored", "limitation discarded")

log = structlog.get_logger()


@dataclass(frozen=True)
class Image:
    """An image as it is on this machine: what it is called, and what it is."""

    name: str
    #: The digest of its content, without the name of the hash.
    id: str
    #: The digest of its manifest, as a registry knows it; empty where none has told it.
    digest: str


@dataclass(frozen=True)
class State:
    """How a container is, or ended."""

    status: str
    process: int
    exit_code: int
    out_of_memory: bool

    @property
    def was_started(self) -> bool:
        """Whether its first process has ever run."""
        return self.status not in ("created", "configured", "initialized")


class RuntimeProblemError(CannotStartError):
    """The runtime does not do what it was asked for; the message has its own words."""


@dataclass(frozen=True)
class _Kind:
    """What is not the same for both."""

    #: Nothing of the service's own gets in, and nothing is written but where it may be.
    create: tuple[str, ...]
    remove: tuple[str, ...]
    #: What it says its version by.
    version: str
    #: How a container is given one graphics processor; empty where all are given at once.
    one_gpu: str
    #: How files that a container of an unprivileged service writes become the service's.
    user: tuple[str, ...]


_KINDS: Mapping[str, _Kind] = {
    "podman": _Kind(
        create=(
            *("--http-proxy=false", "--systemd=false", "--sdnotify=ignore"),
            *("--image-volume=tmpfs", "--log-driver=none"),
        ),
        remove=("rm", "--force", "--volumes", "--time=0"),
        version="{{.Client.Version}}",
        one_gpu="--device=nvidia.com/gpu={}",
        user=("--userns=keep-id",),
    ),
    "docker": _Kind(
        create=("--log-driver=none",),
        remove=("rm", "--force", "--volumes"),
        version="{{.Server.Version}}",
        one_gpu="",
        user=(),
    ),
}


class ContainerRuntime:
    """Podman or Docker, whichever the settings say or is there."""

    def __init__(self, choice: str, options: Sequence[str]) -> None:
        # Where neither is there, what is said names the one that is tried first.
        self.name = container_program(choice) or ("podman" if choice == "auto" else choice)
        self._kind = _KINDS[self.name]
        self._command = (self.name, *options)

    @cached_property
    def version(self) -> str:
        """What it is, with its version."""
        found = self._ask("version", "--format", self._kind.version)
        return f"{self.name} {found.strip()}"

    def image(self, name: str, pinned: str = "") -> Image:
        """Return an image that is on this machine: by its name, or by the id that it had.

        Raises:
            CannotStartError: it is not here, or the runtime does not answer.
        """
        try:
            (found,) = json.loads(self._ask("image", "inspect", pinned or name))
        except RuntimeProblemError as error:
            if not any(word in str(error).lower() for word in _MISSING):
                raise
            raise CannotStartError(self._missing(name, pinned)) from error
        digests = [text.partition("@")[2] for text in found.get("RepoDigests") or ()]
        digest = found.get("Digest") or next(iter(digests), "")
        return Image(name, found["Id"].removeprefix("sha256:"), digest)

    def _missing(self, name: str, pinned: str) -> str:
        pull = shlex.join([*self._command, "pull", name])
        if pinned:
            return (
                f"the image '{name}' is not on this machine any more as it was when the job was "
                f"made, with the id {pinned[:12]}: load it again and retry the job, or run what "
                "is there now with `dicom-adapter jobs rerun --latest`"
            )
        return (
            f"the image '{name}' is not on this machine, and none is pulled by itself: run "
            f"`{pull}`, or load it from a file, then retry the job"
        )

    def create(self, name: str, image: Image, arguments: Sequence[str], *options: str) -> None:
        """Make a container, which does not run yet.

        Raises:
            CannotStartError: it cannot be made.
        """
        words = ("create", f"--name={name}", "--pull=never", *self._kind.create, *options)
        done = self._run([*words, image.id, *arguments], CREATE_SECONDS)
        if any(word in done.stderr.lower() for word in _NO_LIMIT):
            self.remove(name)
            raise CannotStartError(
                f"{self.name} cannot limit what a container uses: it needs version 2 of the "
                f"kernel's control groups, or a service that runs as root; {_last_line(done)}"
            )

    def attached(self, name: str) -> list[str]:
        """Return the command that starts a container, and ends with it."""
        return [*self._command, "start", "--attach", name]

    def gpus(self, numbers: Sequence[int]) -> list[str]:
        """Return the options that give a container graphics processors."""
        if self._kind.one_gpu:
            return [self._kind.one_gpu.format(number) for number in numbers]
        # Quoted once more: it is a list within a list of words parted by commas.
        return [f'--gpus="device={",".join(map(str, numbers))}"'] if numbers else []

    def gpu_variables(self, numbers: Sequence[int]) -> Mapping[str, str]:
        """Return what keeps images from taking graphics processors that they were not given."""
        if numbers and not self._kind.one_gpu:
            # The runtime says it by this variable itself.
            return {}
        return {"NVIDIA_VISIBLE_DEVICES": "void"}

    def user(self, user: User) -> list[str]:
        """Return the options that a container runs as a user by."""
        own = () if os.geteuid() == 0 else self._kind.user
        return [*own, f"--user={user}"]

    def state(self, name: str) -> State | None:
        """Return how a container is; None where there is none, or nobody answers."""
        try:
            (found,) = json.loads(self._ask("container", "inspect", name))
        except RuntimeProblemError:
            return None
        state: Mapping[str, Any] = found["State"]
        return State(state["Status"], state["Pid"], state["ExitCode"], bool(state.get("OOMKilled")))

    def signal(self, name: str, number: str) -> bool:
        """Send a container's first process a signal; False where it does not run."""
        try:
            self._run(("kill", f"--signal={number}", name), SIGNAL_SECONDS)
        except RuntimeProblemError:
            return False
        return True

    def remove(self, name: str) -> None:
        """End a container, whatever it does, and remove all of it."""
        try:
            self._ask(*self._kind.remove, name)
        except RuntimeProblemError as error:
            if "no such container" not in str(error).lower():
                log.warning(
                    "a container could not be removed",
                    action="container.left",
                    container=name,
                    problem=str(error),
                )

    def remove_of(self, job_id: str) -> int:
        """Remove the containers of a job that an earlier run has left; return how many."""
        label = f"--filter=label={JOB_LABEL}={job_id}"
        try:
            names = self._ask("ps", "--all", "--quiet", "--no-trunc", label).split()
        except RuntimeProblemError as error:
            log.warning(
                "it is not known whether containers were left",
                action="container.unknown",
                problem=str(error),
            )
            return 0
        for name in names:
            self.remove(name)
        return len(names)

    def _ask(self, *words: str) -> str:
        return self._run(words, ANSWER_SECONDS).stdout

    def _run(self, words: Sequence[str], patience: float) -> "subprocess.CompletedProcess[str]":
        try:
            done = subprocess.run(  # noqa: S603 - the runtime of the configuration
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patience,
                check=False,
            )
        except FileNotFoundError as error:
            raise RuntimeProblemError(
                f"{self.name} is not on this machine: install it, for instance with "
                f"`apt-get install {_PACKAGES[self.name]}`, and retry the job"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeProblemError(f"{self.name} does not answer: {error}") from error
        if done.returncode:
            raise RuntimeProblemError(f"{self.name} {words[0]}: {_last_line(done)}")
        return done


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines() or ["it says nothing"]
    return lines[-1][:LONGEST_ANSWER]


_PACKAGES: Mapping[str, str] = {"podman": "podman", "docker": "docker.io"}
