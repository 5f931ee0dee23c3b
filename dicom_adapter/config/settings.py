"""The settings: frozen once read, and the source of the reference in docs/configuration.md."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import psutil
from pydantic import (
    BaseModel,
    Field,
    InstanceOf,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from dicom_adapter.config.dicom import CertificateFile, DicomSettings
from dicom_adapter.config.executors import Executor, ExecutorName
from dicom_adapter.config.grpc import GrpcSettings
from dicom_adapter.config.requires import Requirements
from dicom_adapter.config.section import Section
from dicom_adapter.config.sop_classes import AcceptedClasses, IgnoredClass
from dicom_adapter.config.sources import DicomwebSource, Source
from dicom_adapter.config.tokens import BearerTokenFile
from dicom_adapter.config.values import (
    AETitleText,
    Argument,
    ExitCode,
    Flag,
    Folder,
    Frozen,
    ImageName,
    Kind,
    LedgerURL,
    Percentage,
    PlatformAddress,
    Port,
    PositiveSeconds,
    ProjectName,
    Seconds,
    Size,
    Text,
    UniqueTexts,
    Whole,
    ledger_url,
)
from dicom_adapter.config.webhooks import Webhook
from dicom_adapter.lifecycle import CancelPolicy
from dicom_adapter.model import (
    DEFAULT_PROJECT,
    LOCAL_EXECUTOR,
    Duplicates,
    Durability,
    Resend,
    RunRules,
)
from dicom_adapter.model import Retries as RetryRules

_GIB = 1024**3
_HOUR = 3600.0
_DAY = 24 * _HOUR


class ProcessorCatalogue(Protocol):
    """Knows the job processors that can be named under an AE title."""

    def settings_model(self, name: str) -> type[BaseModel]:
        """Gives the model of a processor's settings; raises with a clear message if unknown."""


def _cpus() -> int:
    # In a container or under taskset, these are the processors that we may really use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    return int(psutil.virtual_memory().total)


class StorageSettings(Section):
    """Where received instances wait for what needs them."""

    path: Folder = Field(
        default=Path("./data"),
        description="The data folder, for this service alone, on a local disk.",
    )
    durability: Durability = Field(
        default=Durability.POWER_LOSS,
        description="What everything that was answered Success survives.",
    )
    watermark: Percentage = Field(
        default=0.85,
        # A percentage is written with its sign, which a number has not.
        validate_default=False,
        description="Fuller than this, delivered instances go ahead of `retain`.",
    )
    reserve: Size = Field(
        default=5 * _GIB, description="With less free than this, C-STORE is answered 0xA700."
    )
    retain: Seconds = Field(default=0.0, description="How long delivered instances are kept.")
    require_marker: Flag = Field(
        default=False,
        description="Whether a data folder without its marker file is refused, as not mounted.",
    )


class LedgerSettings(Section):
    """The database of everything that must survive a restart."""

    url: LedgerURL = Field(
        description="The database; a relative file is relative to this file.",
        json_schema_extra={"default": "`ledger.db` in `storage.path`"},
    )


class Capacity(Section):
    """What jobs may use together."""

    cpus: Whole = Field(
        default_factory=_cpus,
        ge=1,
        description="Processors for all jobs together.",
        json_schema_extra={"default": "what the machine has"},
    )
    memory: Annotated[Size, Field(ge=1)] = Field(
        default_factory=_memory,
        description="Memory for all jobs together.",
        json_schema_extra={"default": "what the machine has"},
    )
    gpus: Whole = Field(default=0, ge=0, description="Graphics processors for all jobs together.")


class Keep(Section):
    """How long the files of a job are kept after its end."""

    inputs: Seconds = Field(
        default=7 * _DAY,
        description="A job's inputs, after its end.",
    )
    outputs: Seconds = Field(default=30 * _DAY, description="What a job produced, after its end.")
    logs: Seconds = Field(default=90 * _DAY, description="A job's log, after its end.")


class PlatformSettings(Section):
    """The platform that runs the jobs."""

    address: PlatformAddress = Field(
        default="embedded",
        description="The one inside this service, or any other server of its API.",
    )
    token: BearerTokenFile | None = Field(
        default=None, description="A file with the token that another server knows us by."
    )
    ca: CertificateFile | None = Field(
        default=None,
        description="Who vouches for another server, which is called by TLS then.",
    )
    executor: ExecutorName = Field(
        default=LOCAL_EXECUTOR,
        description="Where pipelines run that name no executor: `local`, or one of `executors`.",
    )
    container_runtime: Literal["auto", "podman", "docker"] = Field(
        default="auto",
        description="What runs images; `auto`: Podman where it is there, else Docker.",
    )
    container_options: tuple[Text, ...] = Field(
        default=(),
        description="Options of that runtime, before each of its commands.",
    )
    max_jobs: Whole = Field(
        default=4, ge=1, description="Jobs at a time; 1: strictly one after another."
    )
    ageing: PositiveSeconds = Field(
        default=_HOUR,
        description="So long a job waits to be worth the next higher priority.",
    )
    on_lost: Literal["requeue", "fail"] = Field(
        default="requeue",
        description="What becomes of a job whose service crashed, or lost its power, while it ran: "
        "it runs again, or it fails with the reason `lost`.",
    )
    capacity: Capacity = Field(default_factory=Capacity)
    keep: Keep = Keep()


class LogSettings(Section):
    """What the service says about its work, on standard error."""

    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="`auto` is `text` on a terminal, else `json`."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important lines that are written."
    )


class Resources(Section):
    """What one job needs while it runs."""

    cpus: Whole = Field(default=1, ge=1, description="Processors that a job needs.")
    memory: Size = Field(default=_GIB, description="Memory that a job needs.")
    gpus: Whole = Field(default=0, ge=0, description="Graphics processors that a job needs.")


class Limits(Section):
    """How many jobs of one pipeline, or of one project, there may be at a time."""

    running: Whole | None = Field(default=None, ge=1, description="Jobs that run.")
    waiting: Whole | None = Field(
        default=None, ge=1, description="Jobs that wait; what asks for more tries again later."
    )
    daily: Whole | None = Field(
        default=None, ge=1, description="Jobs that start within 24 hours; the others wait."
    )


class Retries(Section):
    """When a job that failed runs again by itself."""

    attempts: Whole = Field(
        default=RetryRules().attempts,
        ge=0,
        le=100,
        description="How often a job runs again by itself: after one of these exit codes, or where "
        "it was lost.",
    )
    exit_codes: tuple[ExitCode, ...] = Field(
        default=(),
        description="The exit codes of passing troubles; below 0, the number of a signal.",
    )
    delay: PositiveSeconds = Field(
        default=RetryRules().delay,
        description="The wait before the first time; it doubles with each.",
    )
    max_delay: PositiveSeconds = Field(
        default=RetryRules().max_delay, description="The longest wait."
    )


class Pipeline(Section):
    """A command, a container image, or a pipeline elsewhere, that works on a job's instances."""

    named_by: ClassVar[str | None] = "name"

    name: str
    description: str = Field(default="", description="What it does, for people.")
    executor: ExecutorName = Field(
        default=LOCAL_EXECUTOR,
        description="Where it runs: `local`, or one of `executors`; docs/remote.md says how.",
        json_schema_extra={"default": "`platform.executor`"},
    )
    remote_pipeline: Text | None = Field(
        default=None,
        description="What it is called at another platform.",
        json_schema_extra={"default": "the same"},
    )
    image: ImageName | None = Field(
        default=None,
        description="A container image that is run instead of a command of this machine; "
        "docs/containers.md says how.",
    )
    command: tuple[Argument, ...] = Field(
        default=(),
        validate_default=True,
        description="The program and its arguments, run without a shell; `{input}`, `{output}`, "
        "`{job}` and `{progress}` become paths, and a literal brace is doubled. Beside an `image`: "
        "the arguments for that.",
        json_schema_extra={"default": "none, which needs an `image` or an `executor`"},
    )
    resources: Resources = Resources()
    requires: Requirements | None = None
    limits: Limits = Limits()
    timeout: PositiveSeconds | None = Field(
        default=None, description="A job that runs longer is stopped and fails."
    )
    queue_timeout: PositiveSeconds | None = Field(
        default=None, description="A job that waits longer in the queue fails."
    )
    silence_timeout: PositiveSeconds | None = Field(
        default=None,
        description="A job that runs for longer without a line in its log, and without progress, "
        "is stopped and fails.",
    )
    cancel: CancelPolicy = Field(
        default=CancelPolicy.KILL,
        description="What a cancellation does to a running job: its processes are ended within 5 s "
        "(`kill`), are let end by themselves (`drain`), or get SIGTERM and decide (`request`).",
    )
    retries: Retries = Retries()
    log_size: Annotated[Size, Field(ge=4096)] = Field(
        default=RunRules().log_size,
        description="Of a log that is longer than this, the head and the tail are kept.",
    )
    steps: UniqueTexts = Field(default=(), description="The steps that it reports, in order.")

    @field_validator("command")
    @classmethod
    def _runs_something(cls, command: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        # An image, or executor, that is wrong has a mistake of its own.
        is_local = info.data.get("executor") == LOCAL_EXECUTOR
        if is_local and not command and info.data.get("image", "wrong") is None:
            raise PydanticCustomError("missing", "there is neither a command nor an image")
        return command

    @property
    def is_remote(self) -> bool:
        """Whether another platform runs it."""
        return self.executor != LOCAL_EXECUTOR


class Project(Section):
    """What jobs belong together; there always is one that is called `default`."""

    description: str = Field(default="", description="What it is, for people.")
    limits: Limits = Limits()


class AETitle(Section):
    """An AE title that studies can be sent to."""

    named_by: ClassVar[str | None] = "title"

    title: AETitleText
    processor: Text = Field(
        default="ae_title", description="The job processor: its name, or `module:Class`."
    )
    port: Port | None = Field(
        default=None, description="A port of its own, instead of `dicom.port`."
    )
    require_user: Flag | None = Field(
        default=None,
        description="Whether a peer must identify itself, as `dicom.require_user` has it.",
        json_schema_extra={"default": "`dicom.require_user`"},
    )
    ignored_sop_classes: tuple[IgnoredClass, ...] = Field(
        default=(), description="Answered Success and not kept."
    )
    accepted_sop_classes: AcceptedClasses | None = Field(
        default=None,
        description="The only ones that are negotiated.",
        json_schema_extra={"default": "every storage SOP class"},
    )
    duplicates: Duplicates = Field(
        default=Duplicates.KEEP_FIRST,
        description="Of instances with one SOP Instance UID, but other bytes: what a job gets.",
    )
    resend: Resend = Field(
        default=Resend.PROCESS,
        description="What comes of the same bytes, sent again after their group was closed.",
    )
    project: ProjectName = Field(
        default=DEFAULT_PROJECT, description="The project that its jobs are in."
    )
    settings: Annotated[SerializeAsAny[InstanceOf[BaseModel]], Kind("mapping")] = Field(
        description="The settings of the job processor.",
        json_schema_extra={"default": "the processor's own"},
    )


def _beside_the_data(validated: Mapping[str, Any]) -> LedgerSettings:
    storage: StorageSettings = validated["storage"]
    return LedgerSettings(url=ledger_url(storage.path / "ledger.db"))


class Settings(Section):
    """The whole configuration, as read from one file."""

    file: str = ""
    """The file that it was read from, for messages."""
    dicom: DicomSettings = Field(default_factory=DicomSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    ledger: LedgerSettings = Field(default_factory=_beside_the_data)
    platform: PlatformSettings = Field(default_factory=PlatformSettings)
    grpc: GrpcSettings = GrpcSettings()
    log: LogSettings = LogSettings()
    executors: Frozen[Executor] = Field(default_factory=dict)
    pipelines: Frozen[Pipeline] = Field(default_factory=dict)
    projects: Frozen[Project] = Field(default_factory=dict)
    ae_titles: Frozen[AETitle] = Field(default_factory=dict)
    sources: Frozen[Source | DicomwebSource] = Field(default_factory=dict)
    webhooks: Frozen[Webhook] = Field(default_factory=dict)
