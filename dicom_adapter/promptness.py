"""TCP without the delays that it has by itself."""

import socket
from contextlib import suppress

# Linux alone has it; elsewhere the peer's Nagle algorithm may still wait for us.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def send_at_once(sock: socket.socket) -> None:
    """Have small writes sent now, not once the peer has acknowledged the one before."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Have what was just received acknowledged now, not up to 40 ms later.

    A sender with Nagle's algorithm, as most are, holds back the rest of its image until then. The
    kernel forgets the option, so it is set after each reception.
    """
    if _QUICK_ACK is not None:
        # The connection may be gone by now.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
