"""The settings of the DICOM listener, `dicom:` in the file."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
)

from dicom_adapter.config.certificates import CERTIFICATE, KEY, REVOCATIONS, Pem, pem
from dicom_adapter.config.passcodes import Passcode, check_passcode
from dicom_adapter.config.section import Section
from dicom_adapter.config.tokens import TokenKey, read_token_key
from dicom_adapter.config.values import (
    MAX_PORT,
    BindHost,
    Flag,
    Frozen,
    Kind,
    Port,
    PositiveSeconds,
    Size,
    Text,
    UIDText,
    Whole,
)

_GIB = 1024**3


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
