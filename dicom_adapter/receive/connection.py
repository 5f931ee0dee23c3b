"""One connection: its socket in the event loop, and the association that is spoken over it."""

import socket
import time
from struct import Struct
from typing import Protocol

from dicom_adapter.receive.association import Association
from dicom_adapter.receive.loop import READ, WRITE, Loop
from dicom_adapter.receive.transport import HandshakeError, Transport

#: How long a peer may take to close the connection, once all is said, before we do, in seconds.
LINGER_SECONDS = 0.5
# A struct linger: on, and no time at all.
_AT_ONCE = Struct("ii").pack(1, 0)


class Owner(Protocol):
    """Who keeps the connections."""

    #: Where received bytes lie until they are written: one buffer for all connections.
    buffer: memoryview

    @property
    def patience(self) -> float:
        """How long a peer may leave an answer unread, in seconds."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""


class Connection:
    """Reads for its association, and writes for it; it is the association's `Peer`."""

    association: Association

    def __init__(self, loop: Loop, owner: Owner, transport: Transport) -> None:
        self._loop = loop
        self._owner = owner
        self._transport = transport
        self._unsent = bytearray()
        self._unsent_since = 0.0
        #: Received while the association was busy.
        self._untaken = b""
        #: Set when more has come while the association was busy.
        self._is_paused = False
        self._watched = 0
        self._hanging_up: float | None = None
        self._is_closed = False
        self._timer_at: float | None = None

    def start(self, association: Association) -> None:
        """Begin to read."""
        self.association = association
        self._watch()
        self._set_timer()

    # The association's side.

    @property
    def certificate(self) -> frozenset[str]:
        """The names in the peer's certificate: none without one that was verified."""
        return self._transport.certificate

    def send(self, data: bytes) -> None:
        """Send bytes, now or as soon as the peer takes them."""
        if self._is_closed:
            return
        if not self._unsent:
            self._unsent_since = time.monotonic()
        self._unsent += data
        self._write()

    def hang_up(self) -> None:
        """Have the peer close the connection, or close it; nothing more is received.

        The peer is to be first (PS3.8 section 9.2, Sta13): it may not have read all of it yet.
        """
        if self._hanging_up is None:
            self._hanging_up = time.monotonic() + LINGER_SECONDS
            self._set_timer()

    def resume(self) -> None:
        """Go on reading, now that the association is not busy any more."""
        if self._is_closed:
            self.association.closed()
            return
        untaken, self._untaken = self._untaken, b""
        self._is_paused = False
        self.association.wait_anew()
        self._take(memoryview(untaken))
        self._watch()
        self._set_timer()

    def cut(self, why: str) -> None:
        """Close at once."""
        self.association.lost(why)
        self._close()

    # The loop's side.

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if (events & READ or self._transport.wants_write) and not self._is_closed:
            self._read()
        if not self._is_closed:
            self._watch()
            self._set_timer()

    def _read(self) -> None:
        if self.association.busy:
            # Sent ahead of our answer: it stays in the kernel, and TCP slows the sender down.
            self._is_paused = True
            return
        try:
            count = self._transport.receive(self._owner.buffer)
        except HandshakeError as error:
            self._refuse(str(error))
            return
        except OSError:
            count = 0
        if count:
            self._take(self._owner.buffer[:count])
        elif count == 0:
            self.cut("closed without release or abort")

    def _refuse(self, why: str) -> None:
        self.association.untrusted(why)
        # What still comes is not read, and the peer has time to read the alert.
        self._is_paused = True
        self.hang_up()

    def _take(self, data: memoryview) -> None:
        if self._hanging_up is None and data:
            taken = self.association.receive(data)
            # Copied, for the buffer is every connection's; it is never more than that holds.
            self._untaken = bytes(data[taken:])

    def _write(self) -> None:
        try:
            while self._unsent:
                with memoryview(self._unsent) as unsent:
                    count = self._transport.send(unsent)
                if not count:
                    break
                del self._unsent[:count]
                self._unsent_since = time.monotonic()
                self.association.wait_anew()
        except OSError:
            self._loop.post(lambda: self.cut("closed without release or abort"))
            self._unsent.clear()

    def _watch(self) -> None:
        """Watch for what is wanted now."""
        if self._is_closed:
            return
        # A peer that does not read its answers is not given more of them.
        reads = not self._is_paused and not self._unsent
        writes = self._unsent or self._transport.wants_write
        wanted = (READ if reads else 0) | (WRITE if writes else 0)
        if wanted == self._watched:
            return
        if not self._watched:
            self._loop.watch(self._transport.socket, wanted, self._ready)
        elif wanted:
            self._loop.change(self._transport.socket, wanted, self._ready)
        else:
            self._loop.unwatch(self._transport.socket)
        self._watched = wanted

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._watched:
            self._loop.unwatch(self._transport.socket)
        self._transport.close()
        self._owner.closed(self)
        # While it is busy an instance is still being kept, and to be counted.
        if not self.association.busy:
            self.association.closed()

    # Deadlines.

    def _deadline(self) -> float | None:
        if self._hanging_up is not None:
            return self._hanging_up
        if self._unsent:
            return self._unsent_since + self._owner.patience
        return self.association.deadline()

    def _set_timer(self) -> None:
        deadline = self._deadline()
        # One that is too early only looks again; so a transfer sets no timer for each message.
        if deadline is not None and (self._timer_at is None or deadline < self._timer_at):
            self._timer_at = deadline
            self._loop.call_at(deadline, self._timer)

    def _timer(self) -> None:
        if self._is_closed or self._timer_at is None:
            return
        now = time.monotonic()
        if now < self._timer_at:
            # An earlier one was set after it, and has taken its place.
            return
        self._timer_at = None
        deadline = self._deadline()
        if deadline is not None and deadline <= now:
            self._expire()
        if not self._is_closed:
            self._set_timer()

    def _expire(self) -> None:
        if self._hanging_up is not None:
            self.cut("closed")
        elif self._unsent:
            # Thrown away with what the kernel still holds for it, and would for minutes.
            self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.cut("it does not read what it is answered")
        else:
            self.association.expire()
