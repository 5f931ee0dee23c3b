"""DIMSE sources that are asked by TLS, against a real Orthanc, and those that are not to be."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt

from dicom_adapter import scu
from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.retrieve import fetching
from tests.certificates import CLIENT, SERVER, Authority
from tests.orthanc import AE_TITLE, orthanc
from tests.receive.conftest import log
from tests.receive.support import free_port
from tests.retrieve.conftest import Cache, Ports, Runs, study_of
from tests.retrieve.faulty import FIND, REFUSED, SOON, calling, is_silent, told, until
from tests.support import PATIENCE

pytestmark = pytest.mark.usefixtures("log")
__all__ = ["log"]

STUDY = "1.2.826.2762"
CONFIG = """
dicom:
  host: 127.0.0.1
  port: {adapter}
  tls: {{port: {tls}, certificate: {own}.pem, key: {own}.key, ca: {ca}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
ae_titles:
  CACHE: {{processor: cache}}
sources:
  MOVE: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}, tls: true}}
  GET: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}, retrieve: c-get, tls: true}}
  NAMED: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}, tls: true, certificate: Pacs}}
  OTHER: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}, tls: true, certificate: archive}}
  PLAIN: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}}}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return one that both trust, with a certificate for each."""
    made = Authority(tmp_path)
    made.issue("adapter", usage=(CLIENT, SERVER))
    made.issue("pacs", usage=(CLIENT, SERVER))
    return made


Opens = Callable[..., AbstractContextManager[Cache]]


@pytest.fixture
def opened(cache_at: Runs, ports: Ports, authority: Authority) -> Opens:
    """Return what runs a cache that asks by TLS; its TLS port may be named."""

    @contextmanager
    def run(tls: int = 0, own: str = "adapter", ca: str = "ca.pem") -> Iterator[Cache]:
        folder = authority.folder
        text = CONFIG.format(
            adapter=ports.adapter,
            dicom=ports.dicom,
            tls=tls or free_port(),
            own=folder / own,
            ca=folder / ca,
        )
        with cache_at(text) as cache:
            yield cache

    return run


@pytest.mark.orthanc
def test_studies_come_by_tls(
    opened: Opens, authority: Authority, ports: Ports, tmp_path: Path
) -> None:
    """By C-GET over our connection, by C-MOVE over one of the PACS to our TLS port."""
    tls, folder = free_port(), authority.folder
    modality = {"AET": "CACHE", "Host": "127.0.0.1", "Port": tls, "UseDicomTls": True}
    settings = {
        "DicomModalities": {"cache": modality},
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(folder / "pacs.pem"),
        "DicomTlsPrivateKey": str(folder / "pacs.key"),
        "DicomTlsTrustedCertificates": str(folder / "ca.pem"),
        "DicomTlsRemoteCertificateRequired": True,
    }
    pacs_folder = tmp_path / "orthanc"
    with (
        orthanc(pacs_folder, (ports.http, ports.dicom), {}, **settings) as pacs,
        opened(tls) as cache,
    ):
        pacs.store(study_of(STUDY))
        for number, way in enumerate(("MOVE", "GET", "NAMED"), 1):
            pacs.store(study_of(f"{STUDY}.{number}", series=1))
            *_, last = cache.fetch(way, f"{STUDY}.{number}")
            assert (last.before, last.fetched) == (0, 3), way
        assert len(cache.files()) == 9
        # It is TLS alone that it speaks: who asks without is not understood.
        with pytest.raises(Exception, match="does not answer"):
            cache.find("PLAIN", PatientID="*1")


def nothing(_: evt.Event) -> Iterator[Any]:
    """Have nothing that is looked for."""
    yield from ()


@contextmanager
def serving(
    port: int, context: ssl.SSLContext, find: Callable[[evt.Event], Iterator[Any]] = nothing
) -> Iterator[None]:
    """Run a PACS that is asked for studies."""
    ae = AE(AE_TITLE)
    ae.add_supported_context(FIND)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_FIND, find)]
    server = ae.start_server(
        ("127.0.0.1", port), block=False, ssl_context=context, evt_handlers=handlers
    )
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


def side_of(folder: Path, name: str, ca: str = "ca.pem") -> ssl.SSLContext:
    """Return a PACS's side of TLS, which wants our certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.load_verify_locations(folder / ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_whom_tls_refuses_is_told(
    opened: Opens, authority: Authority, ports: Ports, version: ssl.TLSVersion
) -> None:
    """Why, in words, by either side, and nothing is tried again that would fail again."""
    folder = authority.folder
    stranger = Authority(folder, "stranger")
    stranger.issue("foreign", usage=(SERVER,))
    authority.issue("client", usage=(CLIENT,))
    wrong = (
        (side_of(folder, "foreign"), "the peer's certificate: unable to get local issuer"),
        (side_of(folder, "client"), "certificate purpose"),
        (side_of(folder, "pacs", "stranger.pem"), "the peer gives up: unknown ca"),
    )
    with opened() as cache:
        for context, words in wrong:
            context.maximum_version = version
            with (
                serving(ports.dicom, context),
                told(REFUSED, "GET: ORTHANC@127.0.0.1:", "no connection by TLS: ", words),
            ):
                cache.find("GET", PatientID="1")
        context = side_of(folder, "pacs")
        context.maximum_version = version
        with serving(ports.dicom, context):
            assert cache.find("NAMED", PatientID="1") == []
            with told(REFUSED, "has a certificate of pacs, not of archive"):
                cache.find("OTHER", PatientID="1")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        # What most answer to what is no PDU: an A-ABORT.
        ("07 00 00000004 00000002", REFUSED, "the peer does not speak TLS"),
        ("", UnavailableError, "the peer ends the connection"),
    ],
    ids=["speaks no TLS", "goes away"],
)
def test_who_shakes_no_hands_is_told(
    opened: Opens, ports: Ports, answer: str, kind: type[DicomAdapterError], words: str
) -> None:
    """Nobody is asked in the clear instead; one that goes away may be there another time."""
    with opened() as cache, socket.create_server(("127.0.0.1", ports.dicom)) as listener:

        def respond() -> None:
            peer, _ = listener.accept()
            with peer:
                # All of what it was sent, or the end would be a reset.
                peer.recv(65536)
                peer.sendall(bytes.fromhex(answer))

        thread = threading.Thread(target=respond)
        thread.start()
        with told(kind, f"no connection by TLS: {words}"):
            cache.find("GET", PatientID="1")
        thread.join()


def test_silence_in_the_handshake_ends(
    opened: Opens, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one where nobody listens."""
    monkeypatch.setattr(scu, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    with (
        opened() as cache,
        socket.create_server(("127.0.0.1", ports.dicom)),
        pytest.raises(Exception, match="does not answer"),
    ):
        cache.find("GET", PatientID="1")


def test_whoever_is_waited_for_by_tls_can_be_given_up(
    opened: Opens, authority: Authority, ports: Ports
) -> None:
    """The connection ends under the thread that reads from it, and the place is free again."""
    asked = threading.Event()

    def silent(event: evt.Event) -> Iterator[Any]:
        asked.set()
        yield from is_silent(event)

    with opened() as cache, serving(ports.dicom, side_of(authority.folder, "pacs"), silent):
        with calling(cache, "GET") as call:
            assert asked.wait(PATIENCE)
            call.cancel()
            until(lambda: not cache.asked(), SOON)
        # By the end of the service, too.
        with calling(cache, "GET"):
            until(cache.asked)
            began = time.monotonic()
            cache.here.service.stop()
            assert time.monotonic() - began < SOON


def test_files_that_are_gone_are_told(opened: Opens, authority: Authority, ports: Ports) -> None:
    """They are read when a source is asked: what was renewed is taken up by itself."""
    with opened() as cache, serving(ports.dicom, side_of(authority.folder, "pacs")):
        assert cache.find("GET", PatientID="1") == []
        (authority.folder / "adapter.key").unlink()
        with pytest.raises(Exception, match=r"the files of dicom\.tls: certificate: cannot be"):
            cache.find("GET", PatientID="1")
