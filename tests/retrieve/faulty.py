"""Sources that misbehave, and what is asserted of each: what is told, and that nothing is left."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psutil
import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from dicom_adapter.errors import DicomAdapterError, WrongStateError
from dicom_adapter.retrieve import dimse, fetching
from dicom_adapter.v1 import composition_pb2 as messages
from tests.receive.hostile import COMMAND, DATA, LAST, Fields, command, p_data, value
from tests.receive.support import Log
from tests.retrieve.conftest import Cache, Ports, Runs, study_of
from tests.support import PATIENCE

STUDY = "1.2.826.4711"
#: A cache with a PACS to ask, in each way.
CONFIG = """
dicom: {{host: 127.0.0.1, port: {0.adapter}}}
grpc: {{listen: null}}
storage: {{reserve: 1MiB, watermark: 100%}}
ae_titles:
  CACHE: {{processor: cache}}
sources:
  MOVE: {{ae_title: FAULTY, host: 127.0.0.1, port: {0.dicom}}}
  GET: {{ae_title: FAULTY, host: 127.0.0.1, port: {0.dicom}, retrieve: c-get}}
"""
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
#: What a source's refusal is to whoever calls.
REFUSED = WrongStateError
#: How soon whoever is told to stop has stopped, in seconds.
SOON = 5.0
UIDS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}

Handler = Callable[[evt.Event], Iterator[Any]]


def secret_study(each: int = 3, **attributes: object) -> list[Dataset]:
    """Return a series whose patient is to be named nowhere."""
    values: dict[str, object] = {"patient": "Secret1", "PatientName": "Secret^Name", **attributes}
    return study_of(STUDY, series=1, each=each, **values)


@dataclass
class Pacs:
    """A PACS that does as it is told; untold, it does well."""

    port: int
    #: Where its C-MOVEs send.
    target: int
    held: list[Dataset] = field(default_factory=secret_study)
    #: What it was asked: each identifier, by service.
    asked: list[tuple[str, Dataset]] = field(default_factory=list)
    associations: list[Association] = field(default_factory=list)
    find: Handler | None = None
    move: Handler | None = None
    get: Handler | None = None

    def identifiers(self, service: str, level: str) -> list[Dataset]:
        """Return what it was asked by a service at a level."""
        return [
            one for name, one in self.asked if (name, one.QueryRetrieveLevel) == (service, level)
        ]

    def matching(self, asked: Dataset) -> list[Dataset]:
        """Return the instances that have the UIDs that are asked for."""
        wanted = {key: _values(asked.get(key)) for key in UIDS.values() if asked.get(key)}
        return [one for one in self.held if all(one[k].value in v for k, v in wanted.items())]

    def finds(self, event: evt.Event) -> Iterator[Any]:
        """Answer a C-FIND."""
        asked = event.identifier
        self.asked.append(("C-FIND", asked))
        yield from (self.find or self.well_found)(event)

    def well_found(self, event: evt.Event) -> Iterator[Any]:
        """Answer as a good PACS does."""
        asked = event.identifier
        told = set()
        for one in self.matching(asked):
            uid = one[UIDS[asked.QueryRetrieveLevel]].value
            if uid not in told:
                told.add(uid)
                yield 0xFF00, answer(asked, one)

    def moves(self, event: evt.Event) -> Iterator[Any]:
        """Answer a C-MOVE."""
        self.asked.append(("C-MOVE", event.identifier))
        yield "127.0.0.1", self.target
        if self.move is not None:
            yield from self.move(event)
        else:
            wanted = self.matching(event.identifier)
            yield len(wanted)
            yield from ((0xFF00, one) for one in wanted)

    def gets(self, event: evt.Event) -> Iterator[Any]:
        """Answer a C-GET."""
        self.asked.append(("C-GET", event.identifier))
        if self.get is not None:
            yield from self.get(event)
        else:
            wanted = self.matching(event.identifier)
            yield len(wanted)
            yield from ((0xFF00, one) for one in wanted)

    def is_alone(self) -> bool:
        """Tell whether nobody is connected to it."""
        connections = psutil.Process().net_connections()
        return not [
            c for c in connections if c.laddr.port == self.port and c.status == "ESTABLISHED"
        ]


def _values(value: Any) -> list[str]:  # noqa: ANN401 - one value, or several
    return [value] if isinstance(value, str) else list(value)


def answer(asked: Dataset, one: Dataset) -> Dataset:
    """Return what a C-FIND asks of an instance."""
    told_of = Dataset()
    for element in asked:
        if element.keyword in one:
            setattr(told_of, element.keyword, one[element.keyword].value)
    told_of.QueryRetrieveLevel = asked.QueryRetrieveLevel
    return told_of


def status(code: int, comment: str) -> Dataset:
    """Return a status with words."""
    made = Dataset()
    made.Status, made.ErrorComment = code, comment
    return made


@contextmanager
def serving(
    pacs: Pacs,
    services: Sequence[str] = (FIND, MOVE, GET),
    *,
    roles: bool = True,
    **settings: object,
) -> Iterator[Pacs]:
    """Have a PACS listen; settings are those of pynetdicom's AE."""
    ae = AE("FAULTY")
    for service in services:
        ae.add_supported_context(service)
    role = True if roles else None
    ae.add_supported_context(CTImageStorage, SYNTAXES, scu_role=role, scp_role=role)
    ae.requested_contexts = []
    ae.add_requested_context(CTImageStorage, SYNTAXES[0])
    for name, setting in settings.items():
        setattr(ae, name, setting)
    server = ae.start_server(
        ("127.0.0.1", pacs.port),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, pacs.finds),
            (evt.EVT_C_MOVE, pacs.moves),
            (evt.EVT_C_GET, pacs.gets),
            (evt.EVT_ACCEPTED, lambda event: pacs.associations.append(event.assoc)),
        ],
    )
    try:
        yield pacs
    finally:
        server.shutdown()  # type: ignore[union-attr]


def say(event: evt.Event, content: bytes) -> None:
    """Send bytes by hand in an association."""
    with suppress(OSError):
        connection(event).sendall(content)


def connection(event: evt.Event) -> socket.socket:
    """Return the connection of an association."""
    wrapper: Any = event.assoc.dul.socket
    if wrapper.socket is None:
        raise ConnectionError
    found: socket.socket = wrapper.socket
    return found


def found(event: evt.Event, one: Dataset) -> bytes:
    """Return an answer to a C-FIND, as it is sent."""
    context, request = event.context.context_id, event.request.MessageID
    fields: Fields = {
        0x0002: FIND.encode(),
        0x0100: 0x8020,
        0x0120: request,
        0x0800: 1,
        0x0900: 0xFF00,
    }
    is_implicit = event.context.transfer_syntax == ImplicitVRLittleEndian
    content = encode(one, is_implicit, True)  # noqa: FBT003 - as pynetdicom has it
    assert content is not None
    return p_data(
        value(context, COMMAND | LAST, command(fields)), value(context, DATA | LAST, content)
    )


def hang_up(event: evt.Event) -> None:
    """Have the connection end without a word."""
    with suppress(OSError):
        connection(event).shutdown(socket.SHUT_RDWR)


def store(
    event: evt.Event,
    uid: str,
    data: bytes,
    *,
    sop_class: str = CTImageStorage,
    is_whole: bool = True,
    **changes: bytes | int | None,
) -> bytes:
    """Return a C-STORE over the context of CT; `e1000=...` changes an element of its command."""
    contexts = event.assoc.accepted_contexts
    (context, *_) = [c.context_id or 0 for c in contexts if c.abstract_syntax == CTImageStorage]
    changed: Fields = {int(name[1:], 16): c for name, c in changes.items()}
    fields: Fields = {0x0002: sop_class.encode(), 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 0}
    said = command({**fields, 0x1000: uid.encode(), **changed})
    return p_data(
        value(context, COMMAND | LAST, said),
        value(context, DATA | (LAST if is_whole else 0), data),
    )


def answered(event: evt.Event) -> int:
    """Return the status of the next answer to a C-STORE."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        response: Any = event.assoc.dimse.get_msg(block=False)[1]
        if response is not None:
            return int(response.Status)
        time.sleep(0.002)
    raise AssertionError("no answer")


@contextmanager
def told(kind: type[DicomAdapterError], *words: str) -> Iterator[None]:
    """Assert that an error is raised that has these words, and nothing that is to stay secret."""
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    assert "Secret" not in text
    assert "internal error" not in text
    assert "failed within the service" not in text


@contextmanager
def calling(cache: Cache, source: str) -> Iterator[Any]:
    """Have a study fetched meanwhile; the call that is yielded can be cancelled."""
    request = messages.FetchStudyRequest(source=source, study_instance_uid=STUDY)
    call = cache.client.composition.FetchStudy(request)

    def read() -> None:
        with suppress(Exception):
            list(call)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield call
    finally:
        call.cancel()
        reader.join(PATIENCE)


def until(is_so: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.01)


def is_silent(event: evt.Event) -> Iterator[Any]:
    """Answer nothing until the association is over."""
    while event.assoc.is_established:
        time.sleep(0.01)
    yield 0xFF00, None


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what failed tried again at once."""
    monkeypatch.setattr(fetching, "pause_after", lambda _: timedelta(milliseconds=10))


@pytest.fixture
def cache(cache_at: Runs, ports: Ports, log: Log) -> Iterator[Cache]:
    """A running cache, of whose work nothing that identifies a patient is logged."""
    with cache_at(CONFIG.format(ports)) as found:
        yield found
        assert not found.parts()
    assert "Secret" not in log.text
    assert STUDY not in log.text
    assert not log.of("thread.died")
    assert not log.of("rpc.failed")


@pytest.fixture
def idle(ports: Ports) -> Pacs:
    """A PACS that does not listen yet."""
    return Pacs(ports.dicom, ports.adapter)


@pytest.fixture
def pacs(idle: Pacs) -> Iterator[Pacs]:
    """A listening PACS."""
    with serving(idle):
        yield idle


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody waited for longer than for half a second."""
    monkeypatch.setattr(dimse, "PATIENCE", 0.5)
