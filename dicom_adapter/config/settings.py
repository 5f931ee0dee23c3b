"""The settings: frozen once read, and the source of the reference in docs/configuration.md."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import psutil
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    SerializeAsAny,
    model_validator,
)

from dicom_adapter.config.certificates import CERTIFICATE, KEY, REVOCATIONS, Pem, pem
from dicom_adapter.config.passcodes import Passcode, check_passcode
from dicom_adapter.config.sop_classes import AcceptedClasses, IgnoredClass
from dicom_adapter.config.tokens import TokenKey, read_token_key
from dicom_adapter.config.values import (
    MAX_PORT,
    AETitleText,
    Argument,
    BindHost,
    Flag,
    Folder,
    Frozen,
    Kind,
    LedgerURL,
    Listen,
    Network,
    Percentage,
    PlatformAddress,
    Port,
    PositiveSeconds,
    Seconds,
    Size,
    Text,
    UIDText,
    UniqueTexts,
    Whole,
    ledger_url,
)
from dicom_adapter.model import Duplicates, Durability, Resend

_GIB = 1024**3
_DAY = 86_400.0


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


class Section(BaseModel):
    """A part of the configuration: frozen, and without a key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    named_by: ClassVar[str | None] = None
    """The field that comes from the section's own key in the file, not from a key inside it."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_all_defaults(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stood in the file
        return {} if value is None else value


class DicomTimeouts(Section):
    """How long a silent peer is waited for."""

    association: PositiveSeconds = Field(
        default=30.0, description="The wait for a peer to ask for, or to release, an association."
    )
    idle: PositiveSeconds = Field(
        default=60.0, description="An association without a message for so long is aborted."
    )
    progress: PositiveSeconds = Field(
        default=30.0, description="A message without a further byte for so long is aborted."
    )


CertificateFile: TypeAlias = Annotated[
    InstanceOf[Pem], BeforeValidator(pem(CERTIFICATE)), Kind("path")
]
KeyFile: TypeAlias = Annotated[InstanceOf[Pem], BeforeValidator(pem(KEY)), Kind("path")]
PasscodeHash: TypeAlias = Annotated[
    InstanceOf[Passcode], BeforeValidator(check_passcode), Kind("hash of a passcode")
]
CrlFile: TypeAlias = Annotated[InstanceOf[Pem], BeforeValidator(pem(REVOCATIONS)), Kind("path")]


TokenKeyFile: TypeAlias = Annotated[
    InstanceOf[TokenKey], BeforeValidator(read_token_key), Kind("path")
]


def _names(users: Mapping[str, Passcode]) -> str:
    return ", ".join(users) or "none"


class TlsSettings(Section):
    """The TLS port, beside the plain one."""

    port: Whole = Field(
        default=2762,
        ge=1,
        le=MAX_PORT,
        description="Where the AE titles without a port of their own are reached by TLS.",
    )
    certificate: CertificateFile = Field(
        description="Our certificate and the intermediate ones behind it, in PEM form."
    )
    key: KeyFile = Field(description="Its private key, in PEM form and without a passphrase.")
    ca: CertificateFile | None = Field(
        default=None, description="The authorities whose client certificates are trusted."
    )
    crl: CrlFile | None = Field(
        default=None, description="The client certificates that they have revoked."
    )
    require_client_certificate: Flag = Field(
        default=True, description="Whether a client must have a certificate of `ca`."
    )


class JwtSettings(Section):
    """The JSON Web Tokens by which peers may identify themselves."""

    key: TokenKeyFile = Field(description="The public key of who issues them, in PEM form.")
    issuer: Text = Field(description="Who issues them: their `iss`.")
    audience: Text = Field(description="Whom they are for: one of their `aud`.")


class DicomSettings(Section):
    """The DICOM listener."""

    host: BindHost = Field(default="0.0.0.0", description="The address to listen on.")  # noqa: S104 - scanners are on the network
    port: Port = Field(
        default=11112, description="The port of every AE title without one of its own."
    )
    processes: Whole = Field(
        default=1,
        ge=1,
        le=64,
        description="How many processes receive; with 1, this one does.",
    )
    max_associations: Whole = Field(
        default=200, ge=1, description="The most associations at a time."
    )
    max_per_calling_ae: Whole | None = Field(
        default=None,
        ge=1,
        description="The most associations at a time of one calling AE title.",
        json_schema_extra={"default": "no limit"},
    )
    max_per_address: Whole | None = Field(
        default=None,
        ge=1,
        description="The most associations at a time from one address.",
        json_schema_extra={"default": "no limit"},
    )
    max_pdu: Whole = Field(
        default=131_072,
        ge=4096,
        le=1_048_576,
        description="The longest PDU that we accept, in bytes.",
    )
    reject_unknown_sources: Flag = Field(
        default=False,
        description="Whether calling AE title and address must match one of `sources`.",
    )
    tls: TlsSettings | None = None
    users: Annotated[Frozen[PasscodeHash], Kind("mapping of names to hashes", _names)] = Field(
        default={},
        description="Who may identify itself, with what `dicom-adapter hash-passcode` prints.",
    )
    jwt: JwtSettings | None = None
    require_user: Flag = Field(
        default=False,
        description="Whether a peer must identify itself, as one of `users` or by a token.",
    )
    timeouts: DicomTimeouts = DicomTimeouts()
    min_rate: Size = Field(
        default=1024,
        description="A message that comes slower than this per second is aborted.",
    )
    max_instance: Size = Field(
        default=16 * _GIB, description="A longer data set is answered 0xA700."
    )
    private_sop_classes: tuple[UIDText, ...] = Field(
        default=(), description="Storage SOP classes to accept beyond those of the standard."
    )


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
    executor: Literal["local"] = Field(default="local", description="How pipelines are run.")
    max_jobs: Whole = Field(
        default=4, ge=1, description="Jobs at a time; 1: strictly one after another."
    )
    on_lost: Literal["requeue", "fail"] = Field(
        default="requeue",
        description="What becomes of a job whose service crashed, or lost its power, while it ran: "
        "it runs again, or it fails with the reason `lost`.",
    )
    capacity: Capacity = Field(default_factory=Capacity)
    keep: Keep = Keep()


class GrpcSettings(Section):
    """The gRPC API; it is always served on a Unix socket in the data folder too."""

    listen: Listen | None = Field(
        default="127.0.0.1:50051",
        description="Where TCP is served; `null`: nowhere. Port 0 is any.",
    )


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


class Pipeline(Section):
    """A command that works on the instances of a job."""

    named_by: ClassVar[str | None] = "name"

    name: str
    description: str = Field(default="", description="What it does, for people.")
    command: tuple[Argument, ...] = Field(
        min_length=1,
        description="The program and its arguments, run without a shell; `{input}`, `{output}`, "
        "`{job}` and `{progress}` become paths, and a literal brace is doubled.",
    )
    resources: Resources = Resources()
    timeout: PositiveSeconds | None = Field(
        default=None, description="A job that runs longer is stopped and fails."
    )
    steps: UniqueTexts = Field(default=(), description="The steps that it reports, in order.")


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
    settings: Annotated[SerializeAsAny[InstanceOf[BaseModel]], Kind("mapping")] = Field(
        description="The settings of the job processor.",
        json_schema_extra={"default": "the processor's own"},
    )


class Source(Section):
    """Who may send."""

    ae_title: AETitleText = Field(description="The calling AE title.")
    host: Network = Field(description="The address, or network of addresses, that it calls from.")
    certificate: Text | None = Field(
        default=None,
        description="A name in its client certificate: the common name, or a DNS name.",
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
    pipelines: Frozen[Pipeline] = {}
    ae_titles: Frozen[AETitle] = {}
    sources: Frozen[Source] = {}
