"""A TCP proxy that stands between an adapter and its platform, and does what bad networks do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Self

from tests.support import PATIENCE

# Less than a message: what a trap holds is the rest of it.
_PIECE = 8 * 1024
_STOPPED_SECONDS = 0.1


class Way(Enum):
    """Where bytes go."""

    UP = "to the platform"
    DOWN = "to the adapter"


class Trap:
    """A place in the traffic at which a connection is held, until it is told to go on or to break.

    It catches once; what comes after goes through.
    """

    def __init__(self, way: Way, is_here: Callable[[int], bool]) -> None:
        """Lay it.

        Args:
            way: Which bytes it looks at.
            is_here: Tells, of how many bytes have come since then, whether this is the place.
        """
        self._way = way
        self._is_here = is_here
        self._come = 0
        self._lock = threading.Lock()
        self._caught = threading.Event()
        self._left = threading.Event()
        self._goes_on = False

    def wait(self) -> None:
        """Wait until it holds a connection."""
        assert self._caught.wait(PATIENCE), "nothing came to the place"

    def leave(self, *, goes_on: bool) -> None:
        """Let go of what is held: it goes on, or its connection breaks."""
        self._goes_on = goes_on
        self._left.set()

    def passes(self, way: Way, size: int) -> bool:
        """Tell whether so many bytes may pass, having held them if this is the place."""
        if way is not self._way or self._left.is_set():
            return True
        with self._lock:
            self._come += size
            if not self._caught.is_set() and self._is_here(self._come):
                self._caught.set()
            if not self._caught.is_set():
                return True
        # What would come by another connection meanwhile is held too: it may tell the same.
        self._left.wait(PATIENCE)
        return self._goes_on


class Proxy:
    """Forwards every connection to a port of its own to another one, in both ways.

    While `delay` is not 0, each piece of the bytes comes later by so many seconds. Where it is
    `deaf`, connections that there are already swallow all bytes, and stay; new ones are forwarded.
    """

    def __init__(self, port: int, target: int) -> None:
        """Name the ports; it listens as a context only."""
        self.port = port
        self.delay = 0.0
        self.connections = 0
        self._target = target
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._deaf: set[socket.socket] = set()
        self._trap: Trap | None = None
        # Ends what is delayed.
        self._cut = threading.Event()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Listen."""
        self._cut.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(_STOPPED_SECONDS)
        self._threads = [threading.Thread(target=self._accept, args=(self._listener,))]
        self._threads[0].start()

    def down(self) -> None:
        """Refuse connections, and break those that there are."""
        self._cut.set()
        if self._trap is not None:
            self._trap.leave(goes_on=False)
        # First the one that makes the others.
        for thread in self._threads:
            self._break_all()
            thread.join()
        self._threads = []

    def deafen(self) -> bool:
        """Have the connections that there are swallow everything from now on; False without any."""
        with self._lock:
            self._deaf |= self._open
            return bool(self._deaf)

    @contextmanager
    def trap(self, way: Way, is_here: Callable[[int], bool]) -> Iterator[Trap]:
        """Lay a trap; at the end of the block, what it still holds breaks."""
        self._trap = trap = Trap(way, is_here)
        try:
            yield trap
        finally:
            trap.leave(goes_on=False)
            self._trap = None

    def _break_all(self) -> None:
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._cut.is_set():
                # Closing it elsewhere would not wake it.
                with suppress(TimeoutError):
                    near, _ = listener.accept()
                    self.connections += 1
                    self._threads.append(threading.Thread(target=self._serve, args=(near,)))
                    self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        near.settimeout(None)
        # A platform that is down is one that breaks each connection.
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            for end in (near, far):
                # Else what is delayed would be more than what is to be.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            if self._cut.is_set():
                self._break_all()
            up = threading.Thread(target=self._pump, args=(near, far, Way.UP))
            up.start()
            self._pump(far, near, Way.DOWN)
            up.join()
            with self._lock:
                self._open -= {near, far}
                self._deaf -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with suppress(OSError):
            while (piece := source.recv(_PIECE)) and self._may_pass(way, len(piece)):
                if source not in self._deaf:
                    sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _may_pass(self, way: Way, size: int) -> bool:
        if self.delay:
            self._cut.wait(self.delay)
        trap = self._trap
        return trap is None or trap.passes(way, size)
