"""What is to be done with it: submissions, and the jobs that the platform makes of them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from dicom_adapter.lifecycle import CancelPolicy, ItemState, JobState, Phase, Reason
from dicom_adapter.model.instances import StoredInstance
from dicom_adapter.model.requirements import OnMismatch

JOB_NAME_LENGTH = 63
#: The project of whatever names none.
DEFAULT_PROJECT = "default"
#: The range of an input that is all of its series.
WHOLE = "all"
#: The executor that is this machine.
LOCAL_EXECUTOR = "local"


class Priority(IntEnum):
    """How urgent a job is; a higher one starts first."""

    LOWER = 0
    NORMAL = 1
    HIGHER = 2
    IMMEDIATE = 3

    @property
    def label(self) -> str:
        """The word for it in configuration, API and output."""
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> "Priority":
        """Return the priority of a word; ValueError names the words there are."""
        for priority in cls:
            if priority.label == label:
                return priority
        raise ValueError(f"must be one of {', '.join(p.label for p in cls)}, not '{label}'")


class SubmissionState(StrEnum):
    """Where a submission stands."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    PARKED = "parked"
    DISCARDED = "discarded"
    #: Its series do not meet what the pipeline requires, and it asks for no job then.
    SKIPPED = "skipped"


class StepState(StrEnum):
    """Where a step of a pipeline stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True)
class Submission:
    """A pipeline job that is to be, or was, submitted; its id is the request id on the wire."""

    id: str
    ae_title: str
    project: str
    group_id: str | None
    name: str
    pipeline: str
    priority: Priority
    state: SubmissionState
    instances: int
    attempts: int
    created_at: datetime
    ready_at: datetime
    settled_at: datetime | None
    error: str
    job_id: str | None
    #: The submission whose job this one's takes the place of.
    supersedes: str | None
    #: What becomes of it where its series do not meet what the pipeline requires.
    on_mismatch: OnMismatch = OnMismatch.PARK


@dataclass(frozen=True)
class Resources:
    """What a job needs: whole CPUs, bytes of memory, whole GPUs."""

    cpus: int
    memory: int
    gpus: int

    def fits(self, free: "Resources") -> bool:
        """True when all of it is free."""
        return self.cpus <= free.cpus and self.memory <= free.memory and self.gpus <= free.gpus


@dataclass(frozen=True)
class Retries:
    """After which ends a job is run again by itself, how often, and when; times are seconds."""

    attempts: int = 0
    exit_codes: tuple[int, ...] = ()
    delay: float = 10.0
    max_delay: float = 600.0

    def pause(self, retried: int) -> timedelta:
        """Return how long to wait after so many retries: it doubles, up to its cap."""
        return timedelta(seconds=min(self.delay * 2.0**retried, self.max_delay))


@dataclass(frozen=True)
class RunRules:
    """What holds for each of a job's runs, as its pipeline had it when the job was made."""

    #: Bytes; of a longer log the head and the tail are kept.
    log_size: int = 16 * 1024**2
    #: Seconds; None: however long.
    queue_timeout: float | None = None
    silence_timeout: float | None = None
    retries: Retries = Retries()
    #: Whether the items behind one that fails are cancelled.
    fail_fast: bool = False
    #: Where it runs, and what its pipeline is called there where that is another platform.
    executor: str = LOCAL_EXECUTOR
    remote_pipeline: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether another platform runs it."""
        return self.executor != LOCAL_EXECUTOR

    def expiry(self, queued_at: datetime) -> datetime | None:
        """Return until when a job may wait in the queue; None: for ever."""
        if self.queue_timeout is None:
            return None
        return queued_at + timedelta(seconds=self.queue_timeout)


@dataclass(frozen=True)
class ResourceUse:
    """What a job's last attempt used."""

    cpu_seconds: float
    max_rss_bytes: int
    wall_seconds: float


@dataclass(frozen=True)
class InputFile:
    """One instance as a job names it: by the id it was stored under and its sha256."""

    instance_id: str
    sha256: str
    sop_instance_uid: str = field(repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by: other bytes under the same id are another instance."""
        return self.instance_id, self.sha256


@dataclass(frozen=True)
class JobInput:
    """One series, or a part of it, in the order in which the pipeline gets its files."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    range: str
    files: tuple[InputFile, ...]


@dataclass(frozen=True)
class InputSummary:
    """One input of an item as people see it."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    range: str
    instances: int


@dataclass(frozen=True)
class JobItem:
    """The unit of a job that runs, fails and is retried; `number` is its place, from 1."""

    id: str
    number: int
    state: ItemState
    inputs: tuple[InputSummary, ...] = ()
    reason: str = ""
    error: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    used: ResourceUse | None = None


@dataclass(frozen=True)
class JobStep:
    """One step of a pipeline; `progress` runs from 0 to 1."""

    name: str
    state: StepState
    progress: float


@dataclass(frozen=True)
class JobOutput:
    """One file that a job produced; `path` is relative to the job's output folder."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class RemoteJob:
    """A job of another platform, as it stands there."""

    id: str
    name: str
    pipeline_version: str
    state: JobState
    reason: str
    error: str
    exit_code: int | None
    used: ResourceUse | None
    steps: tuple[JobStep, ...]
    outputs: tuple[JobOutput, ...]


@dataclass(frozen=True)
class Waiting:
    """Why a job waits: how many are before it, and what else holds it back, empty for nothing."""

    before: int
    why: str


@dataclass(frozen=True)
class Job:
    """A job as it stands."""

    id: str
    name: str
    project: str
    pipeline: str
    pipeline_version: str
    state: JobState
    reason: str
    priority: Priority
    ae_title: str
    instances: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    arguments: Mapping[str, str]
    command: tuple[str, ...]
    timeout: float | None
    requested: Resources
    used: ResourceUse | None
    attempts: int
    exit_code: int | None
    error: str
    #: The container image that it runs in, empty for none, and the id of what that was, once known.
    image: str = ""
    image_id: str = ""
    #: The name of the job that this one takes the place of, or its request id where it is unknown.
    supersedes: str | None = None
    items: tuple[JobItem, ...] = ()
    steps: tuple[JobStep, ...] = ()
    outputs: tuple[JobOutput, ...] = ()
    cancel_policy: CancelPolicy = CancelPolicy.KILL
    rules: RunRules = RunRules()
    #: How often it was run again by itself, since it was made or retried by hand.
    retried: int = 0
    #: How far its attempt is; None where none holds it.
    phase: Phase | None = None
    #: Before this it does not run again; None where it may at once.
    ready_at: datetime | None = None
    #: The name of the job whose definition and inputs it has, or its id where that was deleted.
    rerun_of: str | None = None
    #: Of attempts before, by their numbers.
    superseded_outputs: Mapping[int, tuple[JobOutput, ...]] = field(default_factory=dict)
    #: The state that the last cancellation found it in; None where nobody has asked for one.
    cancelled_from: JobState | None = None
    reclaimed: Mapping[str, datetime] = field(default_factory=dict)
    #: Told only of a job in the queue that is looked at alone.
    waiting: Waiting | None = None

    @property
    def is_unfit(self) -> bool:
        """Whether it has failed without a run: its inputs are not what its pipeline requires."""
        never_ran = self.state == JobState.FAILED and not self.attempts
        return never_ran and self.reason == Reason.INPUT_ERROR


@dataclass(frozen=True)
class JobRequest:
    """What a client asks for: one pipeline over ordered items, named by a request id of its own.

    The same request id twice makes one job.
    """

    request_id: str
    name: str
    pipeline: str
    priority: Priority
    ae_title: str
    #: The inputs of each item.
    items: tuple[tuple[JobInput, ...], ...]
    arguments: Mapping[str, str] = field(default_factory=dict)
    #: The request id of the job that this one takes the place of.
    supersedes: str | None = None
    #: Empty: the caller's own, or the default one.
    project: str = ""
    #: Whether the items behind one that fails are cancelled.
    fail_fast: bool = False
    #: Make none where a job of the pipeline that counts has the same inputs.
    refuse_duplicate: bool = False
    #: Whoever wanted it, where the machine's owner asks for somebody else; empty: who asks.
    requested_by: str = ""
    #: What the inputs do not meet of what the pipeline requires: with any, the job never runs.
    unmet: tuple[str, ...] = ()

    @property
    def files(self) -> list[InputFile]:
        """Every file of every input of every item, in order."""
        return [file for inputs in self.items for series in inputs for file in series.files]


def input_of(study: str, series: str, instances: Iterable[StoredInstance]) -> JobInput:
    """Return a series whole: its instances, which are given as they came, go by number.

    Those without an Instance Number (0020,0013) follow those with one, as they came.
    """

    def place(instance: StoredInstance) -> tuple[bool, int]:
        number = instance.instance_number
        return number is None, number or 0

    return chosen_input(study, series, WHOLE, sorted(instances, key=place))


def chosen_input(
    study: str, series: str, range_: str, instances: Iterable[StoredInstance]
) -> JobInput:
    """Return what was chosen of a series, in its order."""
    files = (InputFile(one.id, one.sha256, one.sop_instance_uid) for one in instances)
    return JobInput(study, series, range_, tuple(files))


def safe_name(text: str) -> str:
    """Make a text safe for a job's name: `[a-z0-9-]`, at most 63, no dash at an end or doubled."""
    safe = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", text.lower())).strip("-")
    return safe[:JOB_NAME_LENGTH].rstrip("-")


def job_name(base: str, at: datetime) -> str:
    """Return `base` with the UTC time behind it, at most 63 characters.

    A long base is cut, never the time: Clara cuts the time off and so makes equal names.
    """
    stamp = at.strftime("%Y%m%d%H%M%S")
    head = safe_name(base)[: JOB_NAME_LENGTH - len(stamp) - 1].rstrip("-")
    return f"{head}-{stamp}" if head else stamp


def suffixed_name(name: str, suffix: str) -> str:
    """Return the name with a suffix behind it, at most 63 characters, cut before its time."""
    stamp = re.search(r"-[0-9]{14}$", name)
    base, time = (name[: stamp.start()], stamp[0]) if stamp else (name, "")
    behind = f"{time}-{suffix}"
    return base[: JOB_NAME_LENGTH - len(behind)].rstrip("-") + behind
