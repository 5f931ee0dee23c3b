"""What a pipeline runs as: a process, a container, or another platform's job; one for who waits."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.lifecycle import JobState, Reason

MANIFEST_VARIABLE = "DICOM_ADAPTER_JOB"
_PREFIX = "dicom-adapter-"


class CannotStartError(DicomAdapterError):
    """A pipeline could not be started; the message says what is wrong, and the cure."""


@dataclass(frozen=True)
class RanAt:
    """The job of another platform that did the work."""

    executor: str
    address: str
    pipeline: str
    pipeline_version: str
    job_id: str
    job_name: str


@dataclass(frozen=True)
class Exit:
    """How a program ended: by which code, in words, and what it has used."""

    code: int
    told: str
    cpu_seconds: float
    max_rss_bytes: int
    #: Why its job fails, where the code is not 0.
    reason: Reason = Reason.PIPELINE_ERROR
    #: The job's error, where that is known better than from the end of the log.
    error: str = ""
    #: What another platform has made of it, which is final.
    answer: JobState | None = None
    ran_at: RanAt | None = None


class Program(Protocol):
    """A pipeline that runs, with everything that it has started."""

    def ask(self) -> None:
        """Ask it to end, by TERM; it may do as it likes."""

    def leave(self) -> None:
        """Have this attempt end, while the job goes on: in another one, or later."""

    def kill(self) -> None:
        """End all of it, at once."""

    def measure(self) -> None:
        """Look at what it uses now."""

    def wait(self) -> Exit:
        """Wait until it has ended by itself or was ended, and leave nothing of it."""
        ...


@dataclass(frozen=True)
class Places:
    """Where the pipeline finds what is its own, by the paths that it sees."""

    input: str
    output: str
    job: str
    progress: str
    work: str

    def environment(self) -> dict[str, str]:
        """Return the variables that name them."""
        return {
            "HOME": self.work,
            "TMPDIR": self.work,
            "LANG": "C.UTF-8",
            "DICOM_ADAPTER_INPUT": self.input,
            "DICOM_ADAPTER_OUTPUT": self.output,
            "DICOM_ADAPTER_PROGRESS": self.progress,
            MANIFEST_VARIABLE: self.job,
            # What a MONAI application package looks for.
            "HOLOSCAN_INPUT_PATH": self.input,
            "HOLOSCAN_OUTPUT_PATH": self.output,
        }

    def fill(self, command: Sequence[str]) -> list[str]:
        """Return a command whose placeholders have become paths."""
        places = {
            "input": self.input,
            "output": self.output,
            "job": self.job,
            "progress": self.progress,
        }
        return [argument.format(**places) for argument in command]


def attempt_name(job_id: str, attempt: int | str, item: str = "") -> str:
    """Return what the machine calls an attempt's processes; it is never used again.

    So what is left of one attempt is not in the way of the next, nor one item in that of another.
    A `*` for an attempt makes a pattern.
    """
    return f"{_PREFIX}{job_id}-{attempt}{item and '-'}{item}"


def job_of(name: str) -> str:
    """Return the id of the job that is in the name of an attempt."""
    return name.removeprefix(_PREFIX).partition("-")[0]


def exit_in_words(code: int) -> str:
    """Return how a command ended that did not end well."""
    if code == -signal.SIGKILL:
        return (
            "the command was ended by signal 9, as the kernel does where memory runs out (its log "
            "says so): give the machine more, or run fewer jobs at a time, and retry it"
        )
    if code < 0:
        return f"the command was ended by signal {-code}"
    return f"the command ended with exit code {code}"


def gpu_environment(numbers: Sequence[int]) -> Mapping[str, str]:
    """Return the variable that names graphics processors; empty is none, instead of all."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers))}
