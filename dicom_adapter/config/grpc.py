"""The settings of the gRPC API, `grpc:` in the file."""

from pydantic import Field

from dicom_adapter.config.dicom import CertificateFile, KeyFile
from dicom_adapter.config.section import Section
from dicom_adapter.config.values import Flag, Listen


class GrpcTlsSettings(Section):
    """TLS for the TCP port of the gRPC API."""

    certificate: CertificateFile = Field(
        description="Our certificate and the intermediate ones behind it, in PEM form."
    )
    key: KeyFile = Field(description="Its private key, in PEM form and without a passphrase.")
    ca: CertificateFile | None = Field(
        default=None,
        description="The authorities one of which a caller must have a certificate of.",
    )

    @property
    def crl(self) -> None:
        """Nothing: gRPC looks at no revocations."""

    @property
    def require_client_certificate(self) -> bool:
        """Whether callers without a certificate are refused."""
        return self.ca is not None


class GrpcSettings(Section):
    """The gRPC API; it is always served on a Unix socket in the data folder too."""

    listen: Listen | None = Field(
        default="127.0.0.1:50051",
        description="Where TCP is served, to callers with a token; `null`: nowhere. Port 0 is any.",
    )
    tls: GrpcTlsSettings | None = None
    allow_plaintext: Flag = Field(
        default=False,
        description="Whether other machines are served without TLS, where everybody on the way can "
        "read tokens and images.",
    )
