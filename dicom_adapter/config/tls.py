"""Whether the TLS port can be served as it is configured, and certificates be asked for there."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from dicom_adapter.config.certificates import CertificateError, TlsFiles, server_context
from dicom_adapter.config.dicom import DicomSettings, TlsSettings
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.grpc import GrpcSettings
from dicom_adapter.config.sources import DicomwebSource, Source
from dicom_adapter.config.values import is_loopback, split_address

Problems = Iterator[tuple[KeyPath, str]]

#: So long before its end a certificate is told of: time enough to have another one issued.
NOTICE = timedelta(days=30)

_TLS = ("dicom", "tls")


def file_problems(tls: TlsSettings) -> Problems:
    """Yield what is wrong with the files, alone or together."""
    if tls.require_client_certificate and tls.ca is None:
        cure = "name who vouches for clients, or make require_client_certificate false"
        yield (*_TLS, "ca"), f"is missing: {cure}"
    elif tls.crl is not None and tls.ca is None:
        yield (*_TLS, "crl"), "revokes nothing without dicom.tls.ca"
    yield from _unfit(tls, _TLS)


def grpc_problems(grpc: GrpcSettings) -> Problems:
    """Yield why the TCP port of the API must not be served as it is configured."""
    if grpc.tls is not None:
        yield from _unfit(grpc.tls, ("grpc", "tls"))
    elif grpc.listen is not None and not grpc.allow_plaintext:
        host, _port = split_address(grpc.listen)
        if not is_loopback(host):
            cure = "listen on 127.0.0.1, or make grpc.allow_plaintext true"
            told = f"lets others in without TLS: give grpc.tls a certificate and key, {cure}"
            yield ("grpc", "listen"), told


def _unfit(files: TlsFiles, path: KeyPath) -> Problems:
    try:
        server_context(files)
    except CertificateError as error:
        yield (*path, error.key), error.problem


def source_problems(
    dicom: DicomSettings, sources: Mapping[str, Source | DicomwebSource]
) -> Problems:
    """Yield which sources cannot be asked by TLS, or are bound to what nobody looks at."""
    has_ca = dicom.tls is not None and dicom.tls.ca is not None
    for name, source in sources.items():
        path = ("sources", name)
        if isinstance(source, DicomwebSource):
            continue
        if source.tls and source.is_asked and not has_ca:
            told = "needs dicom.tls with a ca: the certificate that we show, and who vouches for it"
            yield (*path, "tls"), told
        elif source.certificate is None:
            continue
        elif not has_ca:
            yield (*path, "certificate"), "is never seen: it needs dicom.tls with a ca"
        elif not dicom.reject_unknown_sources and not source.tls:
            told = "is not looked at: it needs dicom.reject_unknown_sources to be true"
            yield (*path, "certificate"), told


def expiring(tls: TlsSettings | None, now: datetime) -> Iterator[str]:
    """Yield what of the files in use ends soon, or has ended."""
    if tls is None:
        return
    ends_at = tls.certificate.ends_at
    if ends_at is not None and ends_at - now < NOTICE:
        ends = "has ended" if ends_at <= now else "ends"
        yield (
            f"the TLS certificate {ends} on {ends_at:%Y-%m-%d}: replace {tls.certificate} and "
            "reload (dicom.tls.certificate)"
        )
    # It is renewed often, so only that this was forgotten is worth a word.
    if tls.crl is not None and tls.crl.ends_at is not None and tls.crl.ends_at <= now:
        yield (
            f"every TLS client certificate is refused: the CRL has ended on "
            f"{tls.crl.ends_at:%Y-%m-%d}: replace {tls.crl} and reload (dicom.tls.crl)"
        )
