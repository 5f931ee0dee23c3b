"""The bytes of one connection: non-blocking, without the delays that TCP has by itself."""

import socket
from contextlib import suppress
from typing import Protocol

# Linux alone has it; elsewhere the peer's Nagle algorithm may still wait for us.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Transport(Protocol):
    """Where bytes come from and go to."""

    def receive(self, buffer: memoryview) -> int | None:
        """Fill a buffer; return the count, 0 at the end, None when nothing is there now."""

    def send(self, data: memoryview) -> int:
        """Send what goes now; return how much that was."""


class Plain:
    """A TCP connection as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def receive(self, buffer: memoryview) -> int | None:
        """Fill a buffer; return the count, 0 at the end, None when nothing is there now."""
        try:
            count = self._socket.recv_into(buffer)
        except BlockingIOError:
            return None
        acknowledge_at_once(self._socket)
        return count

    def send(self, data: memoryview) -> int:
        """Send what goes now; return how much that was."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0


def prepare(sock: socket.socket) -> None:
    """Make a new connection non-blocking, and without delays."""
    sock.setblocking(False)  # noqa: FBT003 - its only form
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    acknowledge_at_once(sock)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Have what was just received acknowledged now, not up to 40 ms later.

    A sender with Nagle's algorithm, as most are, holds back the rest of its image until then. The
    kernel forgets the option, so it is set after each reception.
    """
    if _QUICK_ACK is not None:
        # The connection may be gone by now.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
