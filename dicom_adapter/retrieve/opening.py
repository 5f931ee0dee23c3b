"""A source as the configuration has it, made ready to be asked."""

from dicom_adapter.config import DicomwebSource, Settings, Source, TlsSettings
from dicom_adapter.config.certificates import CertificateError, client_context
from dicom_adapter.errors import NotFoundError, SourceError, UnavailableError
from dicom_adapter.retrieve.archive import Archive
from dicom_adapter.retrieve.dicomweb import DicomwebArchive
from dicom_adapter.retrieve.dimse import DimseArchive
from dicom_adapter.scu import Peer, Tls


def archive_of(settings: Settings, name: str, title: str) -> Archive:
    """Return a source, to be asked by an AE title of ours.

    Raises:
        NotFoundError: there is no such source.
        SourceError: it is none that is asked.
        UnavailableError: the files of TLS are of no use any more.
    """
    source = settings.sources.get(name)
    if isinstance(source, DicomwebSource):
        return DicomwebArchive(name, source)
    if source is not None and source.port is not None:
        peer = Peer(source.ae_title, str(source.host.network_address), source.port)
        tls = _tls(source, settings.dicom.tls) if source.tls else None
        return DimseArchive(name, peer, title, source.retrieve, tls)
    if source is not None:
        raise SourceError(f"the source {name} has no port to be asked at: give it one")
    asked = [key for key, one in settings.sources.items() if one.is_asked]
    known = f"known are {', '.join(asked)}" if asked else "the configuration has none"
    raise NotFoundError(f"there is no source '{name}' to be asked for studies: {known}")


def _tls(source: Source, files: TlsSettings | None) -> Tls:
    if files is None:
        # The configuration is refused then.
        raise SourceError("a source that is asked by TLS needs dicom.tls")
    try:
        return Tls(client_context(files), source.certificate)
    except CertificateError as error:
        # They were good when the configuration was read.
        raise UnavailableError(f"the files of dicom.tls: {error}") from error
