"""The event loop: one thread that sleeps until a socket, a deadline or another thread wakes it."""

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from dicom_adapter.errors import fingerprint

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

log = structlog.get_logger()


class Loop:
    """Calls what is registered, in its own thread; only `post` and `stop` are for other threads."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._posted: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)  # noqa: FBT003 - its only form
        self._selector.register(self._woken, READ, self._take_wake_ups)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what was posted before."""
        self.post(self._stop)
        self._thread.join()
        # Not by the thread itself: it may end before the wake-up for it is sent.
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def post(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop's thread, soon."""
        self._posted.append(function)
        if threading.current_thread() is self._thread:
            # It looks for what was posted before it sleeps again.
            return
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            # So many wake-ups lie there already that one more is not needed.
            return

    def watch(self, sock: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Call a function with the events that have come, whenever some of these have."""
        self._selector.register(sock, events, ready)

    def change(self, sock: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Watch a socket for other events from now on."""
        self._selector.modify(sock, events, ready)

    def unwatch(self, sock: socket.socket) -> None:
        """Watch a socket no more."""
        self._selector.unregister(sock)

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a function at a time of the monotonic clock, which no one can set."""
        heapq.heappush(self._timers, (when, next(self._order), function))

    def _stop(self) -> None:
        self._stopping = True

    def _take_wake_ups(self, events: int) -> None:
        del events
        self._woken.recv(4096)

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select(self._longest_sleep()):
                self._call(key.data, events)
            for _ in range(len(self._posted)):
                self._call(self._posted.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._call(heapq.heappop(self._timers)[2])

    def _longest_sleep(self) -> float | None:
        if self._posted:
            return 0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _call(self, function: Callable[..., None], *arguments: int) -> None:
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - the last guard of a thread that must go on
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "the event loop goes on after an internal error",
                action="loop.failed",
                **fingerprint(error),
            )
