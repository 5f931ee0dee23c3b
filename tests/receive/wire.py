"""PDUs made by hand (PS3.8 section 9.3), for what no library sends."""

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.receive.support import CT, EXPLICIT
from tests.support import PATIENCE


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """Return a PDU."""
    return struct.pack(">BxL", kind, len(content)) + content


def associate_rq(
    called: bytes = b"TEST",
    calling: bytes = b"SCU",
    contexts: Iterable[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),),
) -> bytes:
    """Return an A-ASSOCIATE-RQ; its contexts are numbered 1, 3, 5."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfers) in enumerate(contexts):
        syntaxes = b"".join(_item(0x40, uid.encode()) for uid in transfers)
        items += _item(
            0x20,
            bytes([2 * number + 1, 0, 0, 0]) + _item(0x30, abstract.encode()) + syntaxes,
        )
    items += _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3"))
    head = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    return pdu(0x01, head + items)


def _element(number: int, value: bytes) -> bytes:
    return (
        struct.pack("<HHL", 0, number, len(value) + len(value) % 2) + value + bytes(len(value) % 2)
    )


def store_rq(sop_class: bytes, sop_instance: bytes, data: bytes, message: int = 1) -> bytes:
    """Return a whole C-STORE request in P-DATA PDUs, on context 1."""
    elements = (
        _element(0x0002, sop_class)
        + _element(0x0100, struct.pack("<H", 0x0001))
        + _element(0x0110, struct.pack("<H", message))
        + _element(0x0700, struct.pack("<H", 0))
        + _element(0x0800, struct.pack("<H", 0x0000))
        + _element(0x1000, sop_instance)
    )
    command = _element(0x0000, struct.pack("<L", len(elements))) + elements
    return p_data(command, 0x03) + p_data(data, 0x02)


def p_data(content: bytes, control: int) -> bytes:
    """Return a P-DATA-TF with one fragment (PS3.8 annex E) on context 1."""
    return pdu(0x04, struct.pack(">LBB", len(content) + 2, 1, control) + content)


ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, ABORT = 0x02, 0x03, 0x04, 0x06, 0x07
RELEASE_RQ = pdu(0x05, bytes(4))


@dataclass
class Raw:
    """A peer that sends bytes."""

    connection: socket.socket
    _buffer: bytes = field(default=b"")

    def send(self, content: bytes) -> None:
        """Send bytes."""
        self.connection.sendall(content)

    def read(self) -> tuple[int, bytes]:
        """Return the next PDU, its type and its content; type 0 when the connection is closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        return head[0], self._exactly(int.from_bytes(head[2:6], "big"))

    def status(self) -> int:
        """Return the status of the next response."""
        kind, content = self.read()
        assert kind == P_DATA
        at = content.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int.from_bytes(content[at : at + 2], "little")

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            more = self.connection.recv(65536)
            if not more:
                break
            self._buffer += more
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found


@contextmanager
def raw(port: int, host: str = "127.0.0.1") -> Iterator[Raw]:
    """Connect, and close after."""
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        yield Raw(connection)
