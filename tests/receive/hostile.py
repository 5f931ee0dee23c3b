"""Peers that send anything at all, and the proof that none of it has left a trace."""

import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.receive.support import CT, EXPLICIT, IMPLICIT, MR, VERIFICATION, Receiving
from tests.receive.wire import ABORT, ASSOCIATE_AC, Raw, pdu, raw
from tests.support import PATIENCE, make_instance

#: The presentation contexts that are proposed where nothing else is asked for.
CT_CONTEXT, ECHO_CONTEXT, MR_CONTEXT, REFUSED_CONTEXT = 1, 3, 5, 7
CONTEXTS = (
    (CT_CONTEXT, CT, (EXPLICIT,)),
    (ECHO_CONTEXT, VERIFICATION, (IMPLICIT,)),
    (MR_CONTEXT, MR, (EXPLICIT,)),
    (REFUSED_CONTEXT, "1.2.3.4", (EXPLICIT,)),
)
COMMAND, DATA, LAST = 1, 0, 2

#: The elements of a command set: bytes as they are, a number as two bytes, None for none at all.
Fields = Mapping[int, bytes | int | None]

# How soon a good peer is served, in seconds.
AT_ONCE = 1.0


def item(kind: int, content: bytes) -> bytes:
    """Return an item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def context_item(number: int, abstract: str, transfers: Sequence[str]) -> bytes:
    """Return a proposed presentation context."""
    syntaxes = b"".join(item(0x40, uid.encode()) for uid in transfers)
    return item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract.encode()) + syntaxes)


def request(
    contexts: Sequence[tuple[int, str, Sequence[str]]] = CONTEXTS,
    *,
    version: int = 1,
    application: bytes = b"1.2.840.10008.3.1.1.1",
    user: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    items = item(0x10, application) + b"".join(context_item(*context) for context in contexts)
    items += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3") + user)
    head = struct.pack(">HH", version, 0) + b"TEST".ljust(16) + b"SCU".ljust(16) + bytes(32)
    return pdu(0x01, head + items + more)


def value(context: int, control: int, content: bytes) -> bytes:
    """Return a presentation data value."""
    return struct.pack(">LBB", len(content) + 2, context, control) + content


def p_data(*values: bytes) -> bytes:
    """Return a P-DATA PDU of presentation data values."""
    return pdu(0x04, b"".join(values))


def command(fields: Fields) -> bytes:
    """Return a command set; what is None is left out."""
    elements = b""
    for number, content in sorted(fields.items()):
        if content is None:
            continue
        text = struct.pack("<H", content) if isinstance(content, int) else content
        text += bytes(len(text) % 2)
        elements += struct.pack("<HHL", 0, number, len(text)) + text
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


ECHO: Fields = {0x0002: VERIFICATION.encode(), 0x0100: 0x30, 0x0110: 1, 0x0800: 0x0101}


class Instance(NamedTuple):
    """An instance to be sent by hand."""

    uid: bytes
    data: bytes

    @property
    def fields(self) -> Fields:
        """The command set that announces it."""
        return {
            0x0002: CT.encode(),
            0x0100: 0x0001,
            0x0110: 1,
            0x0700: 0,
            0x0800: 0,
            0x1000: self.uid,
        }


def good_instance() -> Instance:
    """Return an instance as it is sent, in explicit VR little endian."""
    made, content = make_instance(), BytesIO()
    made.save_as(content, enforce_file_format=True)
    length = int.from_bytes(content.getvalue()[140:144], "little")
    return Instance(str(made.SOPInstanceUID).encode(), content.getvalue()[144 + length :])


def store(instance: Instance, **changes: bytes | int | None) -> bytes:
    """Return a C-STORE of an instance; `e1000=...` changes an element of its command set."""
    changed: Fields = {int(name[1:], 16): c for name, c in changes.items()}
    fields: Fields = {**instance.fields, **changed}
    return p_data(
        value(CT_CONTEXT, COMMAND | LAST, command(fields)),
        value(CT_CONTEXT, DATA | LAST, instance.data),
    )


def echo() -> bytes:
    """Return a C-ECHO."""
    return p_data(value(ECHO_CONTEXT, COMMAND | LAST, command(ECHO)))


@contextmanager
def established(adapter: Receiving) -> Iterator[Raw]:
    """Open an association by hand."""
    with raw(adapter.port) as peer:
        peer.send(request())
        assert peer.read()[0] == ASSOCIATE_AC
        yield peer


def aborted(peer: Raw) -> str:
    """Return source and reason of the A-ABORT that comes next."""
    kind, content = peer.read()
    assert kind == ABORT, kind
    return f"{content[2]}/{content[3]}"


def is_closed(peer: Raw) -> bool:
    """Tell whether nothing but the end of the connection comes."""
    try:
        return peer.read() == (0, b"")
    except ConnectionError:
        return True


@contextmanager
def unmoved(adapter: Receiving, megabytes: float = 16) -> Iterator[None]:
    """Prove that what happens in the block costs nothing that lasts, and keeps nobody out."""
    serve_well(adapter)
    settle(adapter, None)
    process = psutil.Process()
    before, memory = (process.num_fds(), threading.active_count()), process.memory_info().rss
    yield
    serve_well(adapter)
    settle(adapter, before)
    assert not [path for path in adapter.files() if path.suffix == ".part"]
    assert process.memory_info().rss - memory < megabytes * 2**20


def serve_well(adapter: Receiving) -> None:
    """Assert that a good peer gets in, is answered, and has an instance stored, all at once.

    What the machine had no processor for us does not count: whoever waits for another peer sleeps.
    """
    began, starved = time.monotonic(), _starved()
    with established(adapter) as peer:
        peer.send(echo())
        assert peer.status() == 0
        peer.send(store(good_instance()))
        assert peer.status() == 0
        peer.send(pdu(0x05, bytes(4)))
        assert peer.read()[0] == 0x06
    assert time.monotonic() - began - max(0, _starved() - starved) < AT_ONCE


def _starved() -> float:
    """Return how many seconds our threads that live have waited for a processor."""
    seconds = 0.0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):
            # What it has run, what it has waited, both in nanoseconds; how often it ran.
            seconds += int(path.read_text("utf-8").split()[1]) / 1e9
    return seconds


def settle(adapter: Receiving, wanted: tuple[int, int] | None) -> None:
    """Wait until all associations have ended, and no more descriptors and threads are left."""
    process, deadline = psutil.Process(), time.monotonic() + PATIENCE
    while True:
        # A closed connection is waited for half a second, so that the peer may close it first.
        time.sleep(0.05)
        found = (process.num_fds(), threading.active_count())
        connected = [c for c in process.net_connections() if c.laddr.port == adapter.port]
        is_quiet = all(c.status == psutil.CONN_LISTEN for c in connected if c.fd != -1)
        # Fewer is fine: what an earlier test had left may be collected meanwhile.
        is_back = wanted is None or (found[0] <= wanted[0] and found[1] <= wanted[1])
        if not adapter.listener.associations() and is_quiet and is_back:
            return
        assert time.monotonic() < deadline, (found, wanted, connected)


def send_for_ever(peer: Raw, content: bytes, pause: float = 0) -> None:
    """Send the same again and again, until the connection is closed: ConnectionError."""
    while True:
        peer.send(content)
        time.sleep(pause)
