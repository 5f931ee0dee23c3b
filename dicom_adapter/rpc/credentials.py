"""What both ends of a TCP connection show each other: certificates, and the caller's token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc

from dicom_adapter.config import Executor, GrpcTlsSettings, PlatformSettings


class ServerTls:
    """The server's certificate and key, which may be replaced while it serves."""

    def __init__(self, files: GrpcTlsSettings) -> None:
        self._configuration = _configuration(files)
        self._given = self._configuration
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._changed,  # type: ignore[arg-type]
            require_client_authentication=files.require_client_certificate,
        )

    def reload(self, files: GrpcTlsSettings) -> None:
        """Show this certificate from the next connection on."""
        self._configuration = _configuration(files)

    def _changed(self) -> "grpc.ServerCertificateConfiguration | None":
        # gRPC asks at each handshake; None, which its stubs do not know: as before.
        if self._given is self._configuration:
            return None
        self._given = self._configuration
        return self._given


def _configuration(files: GrpcTlsSettings) -> "grpc.ServerCertificateConfiguration":
    pair = (files.key.path.read_bytes(), files.certificate.path.read_bytes())
    roots = None if files.ca is None else files.ca.path.read_bytes()
    return grpc.ssl_server_certificate_configuration([pair], roots)


@dataclass(frozen=True)
class Credentials:
    """What a client shows, and trusts.

    Attributes:
        token: Who it is; empty on a Unix socket, whose owner is known.
        ca: Who vouches for the server, a file in PEM form; None: no TLS.
    """

    token: str = field(default="", repr=False)
    ca: Path | None = None

    @classmethod
    def of(cls, other: PlatformSettings | Executor) -> Self:
        """Return what is shown to another platform, and trusted, by its settings."""
        return cls(
            token="" if other.token is None else other.token.secret,
            ca=None if other.ca is None else other.ca.path,
        )

    def channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """Return a new connection; OSError where the file cannot be read."""
        if self.ca is None:
            channel = grpc.insecure_channel(address, options)
        else:
            trusted = grpc.ssl_channel_credentials(self.ca.read_bytes())
            channel = grpc.secure_channel(address, trusted, options)
        return grpc.intercept_channel(channel, _Bearer(self.token)) if self.token else channel


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Sends the token with every call."""

    def __init__(self, token: str) -> None:
        self._metadata = ("authorization", f"Bearer {token}")

    def _with_token(self, details: Any) -> _Details:  # noqa: ANN401 - gRPC's own
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._metadata],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(
        self,
        continuation: Any,  # noqa: ANN401 - gRPC's own
        client_call_details: Any,  # noqa: ANN401 - gRPC's own
        request: Any,  # noqa: ANN401 - messages of every kind
    ) -> Any:  # noqa: ANN401 - gRPC's own
        """Send it with a plain call."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(
        self,
        continuation: Any,  # noqa: ANN401 - gRPC's own
        client_call_details: Any,  # noqa: ANN401 - gRPC's own
        request: Any,  # noqa: ANN401 - messages of every kind
    ) -> Any:  # noqa: ANN401 - gRPC's own
        """Send it with a call that streams its answer."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(
        self,
        continuation: Any,  # noqa: ANN401 - gRPC's own
        client_call_details: Any,  # noqa: ANN401 - gRPC's own
        request_iterator: Any,  # noqa: ANN401 - messages of every kind
    ) -> Any:  # noqa: ANN401 - gRPC's own
        """Send it with a call that streams its request."""
        return continuation(self._with_token(client_call_details), request_iterator)
