"""A small sender on a bare socket: it streams what never lies in memory, and may misbehave."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from struct import pack, unpack, unpack_from
from typing import Self

from benchmarks.receivers import AE_TITLE

VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
IMPLICIT = "1.2.840.10008.1.2"

ASSOCIATE_RQ, ASSOCIATE_AC, DATA, ABORT = 1, 2, 4, 7
COMMAND, LAST = 0x01, 0x02
PATIENCE_SECONDS = 120.0


def item(kind: int, body: bytes) -> bytes:
    """Return an item of an A-ASSOCIATE PDU (PS3.8 section 9.3.2)."""
    return pack(">BxH", kind, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU."""
    return pack(">BxI", kind, len(body)) + body


def request(*contexts: tuple[str, str], more: bytes = b"") -> bytes:
    """Return an A-ASSOCIATE-RQ of contexts (SOP class, transfer syntax) and further items."""
    titles = AE_TITLE.ljust(16).encode() + b"SENDER".ljust(16)
    items = [item(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, (sop_class, syntax) in enumerate(contexts):
        names = item(0x30, sop_class.encode()) + item(0x40, syntax.encode())
        items.append(item(0x20, pack(">Bxxx", 2 * number + 1) + names))
    user = item(0x51, pack(">I", 65536)) + item(0x52, b"1.2.826.0.1.3680043.9.9999")
    body = b"".join((*items, more, item(0x50, user)))
    return pdu(ASSOCIATE_RQ, pack(">Hxx", 1) + titles + bytes(32) + body)


def _command(elements: Mapping[int, str | int]) -> bytes:
    """Return a command set: implicit VR little endian, its length first (PS3.7 section 6.3.1)."""
    body = b""
    for number, value in elements.items():
        data = pack("<H", value) if isinstance(value, int) else value.encode()
        data += bytes(len(data) % 2)
        body += pack("<HHI", 0, number, len(data)) + data
    return pack("<HHII", 0, 0, 4, len(body)) + body


_ECHO = _command({0x0002: VERIFICATION, 0x0100: 0x0030, 0x0110: 1, 0x0800: 0x0101})


def _with_last(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Return each piece, and whether it is the last one."""
    rest = iter(pieces)
    held = next(rest)
    for piece in rest:
        yield held, False
        held = piece
    yield held, True


class Connection:
    """A connection to a receiver, without Nagle's algorithm; contexts are numbered 1, 3, 5."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._longest = 16384

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self, *contexts: tuple[str, str]) -> Self:
        """Ask for an association; ConnectionError when it is not granted."""
        self.socket.sendall(request(*(contexts or ((VERIFICATION, IMPLICIT),))))
        kind, body = self.receive()
        if kind != ASSOCIATE_AC:
            raise ConnectionError(f"answered by a PDU of type {kind}")
        at = body.find(pack(">BxH", 0x51, 4), 68)
        # Zero is without a limit.
        self._longest = unpack_from(">I", body, at + 4)[0] or 65536
        return self

    def receive(self) -> tuple[int, bytes]:
        """Return the type and body of the next PDU; ConnectionError when it is an A-ABORT."""
        kind, length = unpack(">BxI", self._exactly(6))
        if kind == ABORT:
            raise ConnectionError("the receiver has aborted the association")
        return kind, self._exactly(length)

    def echo(self) -> int:
        """Send a C-ECHO by the first context, and return the status that it is answered with."""
        self.send(1, COMMAND, [_ECHO])
        return self._status()

    def store(self, context: int, sop_class: str, instance: str, data_set: Iterable[bytes]) -> int:
        """Stream an instance, and return the status that it is answered with."""
        self.command_store(context, sop_class, instance)
        self.send(context, 0, data_set)
        return self._status()

    def command_store(self, context: int, sop_class: str, instance: str) -> None:
        """Send the command of a C-STORE, which a data set has to follow."""
        head: dict[int, str | int] = {
            0x0002: sop_class,
            0x0100: 0x0001,
            0x0110: 1,
            0x0700: 0,
            0x0800: 1,
        }
        self.send(context, COMMAND, [_command({**head, 0x1000: instance})])

    def send(self, context: int, control: int, pieces: Iterable[bytes]) -> None:
        """Send a command or data set, piece by piece."""
        for piece, is_last in _with_last(pieces):
            self.socket.sendall(self._values(context, control, piece, is_last=is_last))

    def _values(self, context: int, control: int, piece: bytes, *, is_last: bool) -> bytes:
        """Return a piece as P-DATA, each PDU as long as the peer takes it."""
        view, size = memoryview(piece), min(self._longest, 131072) - 6
        parts: list[bytes | memoryview] = []
        for at in range(0, len(view), size):
            part = view[at : at + size]
            flags = control | (LAST if is_last and at + size >= len(view) else 0)
            header = pack(">BxIIBB", DATA, len(part) + 6, len(part) + 2, context, flags)
            parts += (header, part)
        return b"".join(parts)

    def _status(self) -> int:
        _, body = self.receive()
        at = 6
        while at < len(body):
            group, element, length = unpack_from("<HHI", body, at)
            if (group, element) == (0, 0x0900):
                return int(unpack_from("<H", body, at + 8)[0])
            at += 8 + length
        raise ConnectionError("the answer has no status")

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the receiver has closed the connection")
            data += more
        return bytes(data)
