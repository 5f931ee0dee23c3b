"""Which ports are asked for twice."""

from collections.abc import Iterator, Mapping

from dicom_adapter.config.dicom import DicomSettings, TlsSettings
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.grpc import GrpcSettings
from dicom_adapter.config.settings import AETitle
from dicom_adapter.config.values import overlap, split_address

Problems = Iterator[tuple[KeyPath, str]]


def tls_problems(
    tls: TlsSettings, dicom: DicomSettings, ae_titles: Mapping[str, AETitle]
) -> Problems:
    """Yield whose plain port the TLS port is already."""
    taken = {dicom.port: "dicom.port"}
    taken |= {
        title.port: f"ae_titles.{title.title}.port"
        for title in ae_titles.values()
        if title.port is not None
    }
    if tls.port in taken:
        yield ("dicom", "tls", "port"), f"must not be {tls.port}: {taken[tls.port]} has it"


def grpc_problems(
    grpc: GrpcSettings, dicom: DicomSettings, ae_titles: Mapping[str, AETitle]
) -> Problems:
    """Yield which DICOM port the API has already."""
    if grpc.listen is None:
        return
    host, port = split_address(grpc.listen)
    if port == 0 or not overlap(dicom.host, host):
        return
    taken: list[tuple[KeyPath, int | None]] = [(("dicom", "port"), dicom.port)]
    taken += [(("ae_titles", name, "port"), title.port) for name, title in ae_titles.items()]
    if dicom.tls is not None:
        taken.append((("dicom", "tls", "port"), dicom.tls.port))
    for path, number in taken:
        if number == port:
            yield path, f"must not be {port}: grpc.listen ({grpc.listen}) has it"
