"""What TLS is made of: files of certificates and keys, and both of its sides built of them."""

import base64
import binascii
import hashlib
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from pydantic import ValidationInfo

from dicom_adapter.config.values import file_path

CERTIFICATE, KEY, REVOCATIONS = "CERTIFICATE", "PRIVATE KEY", "X509 CRL"

# What BCP 195 recommends for TLS 1.2 (RFC 9325 section 4.2): forward secrecy and authenticated
# encryption, with keys of 112 bits of security; TLS 1.3 has nothing else.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK:@SECLEVEL=2"
# A CRL or a bundle of authorities may be long, but no image.
_LONGEST = 64 * 1024**2
# DER (ITU-T X.690): what has parts, and the two ways of writing a time.
_CONSTRUCTED, _UTC_TIME, _GENERALIZED_TIME = 0x20, 0x17, 0x18

# What is wrong with most peers, said plainer than OpenSSL does.
_REASONS = {
    "HTTP_REQUEST": "the peer does not speak TLS",
    "NO_SHARED_CIPHER": "the peer offers no cipher suite that is allowed",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has no certificate",
    "UNEXPECTED_EOF_WHILE_READING": "the peer ends the connection",
    "UNSUPPORTED_PROTOCOL": "the peer offers neither TLS 1.2 nor 1.3",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
}


@dataclass(frozen=True)
class Pem:
    """A file in PEM form, as it was when the configuration was read."""

    path: Path
    #: Of its content: a file that was replaced is another one, also under the same name.
    digest: str = field(repr=False)
    #: When the first certificate ends, or the first CRL has to be renewed; None for a key.
    ends_at: datetime | None = None

    def __str__(self) -> str:
        return str(self.path)


class TlsFiles(Protocol):
    """The files that a side is built of."""

    @property
    def certificate(self) -> Pem:
        """Who we are, with the intermediate authorities behind it."""

    @property
    def key(self) -> Pem:
        """The private key of the certificate."""

    @property
    def ca(self) -> Pem | None:
        """Who vouches for others."""

    @property
    def crl(self) -> Pem | None:
        """Whom they do not vouch for any more."""

    @property
    def require_client_certificate(self) -> bool:
        """Whether clients without a certificate are refused."""


class CertificateError(Exception):
    """A file is of no use for TLS: the key that names it, and what is wrong."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def pem(label: str) -> Callable[[object, ValidationInfo], Pem]:
    """Return the check of a key that names a file with such a PEM block (RFC 7468)."""

    def read(value: object, info: ValidationInfo) -> Pem:
        if isinstance(value, Pem):
            return value
        return _read(file_path(value, info), label)

    return read


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Build the server's side of TLS (PS3.15 section B.12), of the files as they are now.

    Raises:
        CertificateError: a file is gone or unusable, or they do not belong together.
    """
    context = _context(files, ssl.PROTOCOL_TLS_SERVER)
    # Without tickets a session is resumed by this context alone, and so never after a reload, when
    # there may be another CRL.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if files.ca is not None:
        required = files.require_client_certificate
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Build the client's side, of the same files: who we are is shown, and the other is verified.

    Its name is not: peers are configured by address, and certificates of DICOM devices seldom have
    that in them.

    Raises:
        CertificateError: as `server_context` does.
    """
    context = _context(files, ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _load_own(context, files)
    if files.ca is not None:
        _load_trusted(context, "ca", files.ca)
    if files.crl is not None:
        _load_trusted(context, "crl", files.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    def no_passphrase() -> str:
        # OpenSSL would ask the terminal for it.
        raise CertificateError("key", "is encrypted: give one without a passphrase")

    try:
        context.load_cert_chain(files.certificate.path, files.key.path, no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of {files.certificate}"
            raise CertificateError("key", problem) from error
        if words(error).startswith("ee "):
            raise CertificateError("certificate", f"is too weak: {words(error)}") from error
        raise CertificateError("key", f"cannot be used: {words(error)}") from error
    except OSError as error:
        raise CertificateError("certificate", f"cannot be read: {error.strerror}") from error


def _load_trusted(context: ssl.SSLContext, key: str, file: Pem) -> None:
    try:
        context.load_verify_locations(file.path)
    except ssl.SSLError as error:
        raise CertificateError(key, f"cannot be used: {words(error)}") from error
    except OSError as error:
        raise CertificateError(key, f"cannot be read: {error.strerror}") from error


def words(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words; it quotes nothing of what was sent or read."""
    reason: str | None = error.reason
    return (reason or "unknown reason").replace("_", " ").lower()


def why_not(error: ssl.SSLError) -> str:
    """Return why a peer is none to talk with by TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate: {error.verify_message}"
    said = words(error)
    _, is_alert, alert = said.partition(" alert ")
    return f"the peer gives up: {alert}" if is_alert else _REASONS.get(error.reason, said)


def verified_names(connection: ssl.SSLSocket) -> frozenset[str]:
    """Return the names in the peer's certificate, in lower case: none where it is not verified."""
    found = connection.getpeercert() or {}
    subject = [pair for rdn in found.get("subject", ()) for pair in rdn]
    others = found.get("subjectAltName", ())
    return frozenset(
        str(value).lower() for kind, value in [*subject, *others] if kind in ("commonName", "DNS")
    )


def _read(path: Path, label: str) -> Pem:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}: {path}") from None
    found = re.search(
        rf"-----BEGIN [A-Z0-9 ]*{label}-----(.*?)-----END".encode(), content, re.DOTALL
    )
    if found is None:
        raise ValueError(
            f"holds no {label} in PEM form: {path}; openssl can convert it from other forms"
        )
    ends_at = None
    if label != KEY:
        try:
            # Both begin with when they were issued (RFC 5280 sections 4.1 and 5.1).
            _, ends_at = islice(_times(base64.b64decode(found[1])), 2)
        except (ValueError, IndexError, RecursionError, binascii.Error):
            raise ValueError(f"holds no {label} that can be understood: {path}") from None
    return Pem(path, hashlib.sha256(content).hexdigest(), ends_at)


def _times(der: bytes) -> Iterator[datetime]:
    """Yield the times in a DER structure, in their order."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size])
            at += size
        content = der[at : at + length]
        at += length
        if tag & _CONSTRUCTED:
            yield from _times(content)
        elif tag in (_UTC_TIME, _GENERALIZED_TIME):
            form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
            yield datetime.strptime(content.decode("ascii"), form).replace(tzinfo=UTC)
