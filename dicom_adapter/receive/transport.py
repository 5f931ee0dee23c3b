"""The bytes of one connection: non-blocking, without the delays that TCP has by itself."""

import socket
from typing import Protocol

from dicom_adapter.promptness import acknowledge_at_once, send_at_once


class HandshakeError(Exception):
    """The peer is not one to talk with by TLS: why, in words without anything that it sent."""


class Transport(Protocol):
    """Where bytes come from and go to."""

    #: True while a reception goes on only when something can be sent.
    wants_write: bool

    @property
    def socket(self) -> socket.socket:
        """What is to be watched."""
        ...

    @property
    def certificate(self) -> frozenset[str]:
        """The names in the peer's certificate: none without one that was verified."""
        ...

    def receive(self, buffer: memoryview) -> int | None:
        """Fill a buffer; return the count, 0 at the end, None when nothing is there now."""

    def send(self, data: memoryview) -> int:
        """Send what goes now; return how much that was."""

    def close(self) -> None:
        """Close the connection."""


class Plain:
    """A TCP connection as it is."""

    certificate: frozenset[str] = frozenset()

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.wants_write = False

    def receive(self, buffer: memoryview) -> int | None:
        """Fill a buffer; return the count, 0 at the end, None when nothing is there now."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return None
        acknowledge_at_once(self.socket)
        return count

    def send(self, data: memoryview) -> int:
        """Send what goes now; return how much that was."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def prepare(sock: socket.socket) -> None:
    """Make a new connection non-blocking, and without delays."""
    sock.setblocking(False)  # noqa: FBT003 - its only form
    send_at_once(sock)
    acknowledge_at_once(sock)
