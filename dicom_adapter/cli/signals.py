"""What signals ask of a running service."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STANDARD_STREAMS = (0, 1, 2)


class Asked(Enum):
    """What a signal asks for."""

    STOP = auto()
    RELOAD = auto()


class Signals:
    """Waits for signals: SIGTERM, SIGINT and SIGHUP.

    A handler in Python runs only between two steps of the main thread: one that is called for just
    before the thread begins to wait would run after the wait, that is, never. So what is waited
    for is the byte that the interpreter's own handler, in C, writes into a socket.
    """

    def __init__(self, wake: socket.socket, *, on_terminal: bool) -> None:
        """Read from a socket into which the numbers of signals are written."""
        #: Where the numbers of signals come in.
        self.wake = wake
        self._on_terminal = on_terminal
        self._is_stopping = False

    def wait(self) -> Asked:
        """Wait for the next signal, and say what it asks for."""
        return self._meaning(self.wake.recv(1)[0])

    def handle(self, number: int, _: FrameType | None) -> None:
        """End the process at the second wish to stop it: somebody is impatient."""
        if self._meaning(number) is not Asked.STOP:
            return
        # A terminal that goes away may say so twice, and nobody is there to be impatient.
        if self._is_stopping and number != signal.SIGHUP:
            os._exit(128 + number)
        self._is_stopping = True

    def _meaning(self, number: int) -> Asked:
        is_reload = number == signal.SIGHUP and not self._on_terminal
        return Asked.RELOAD if is_reload else Asked.STOP


@contextmanager
def handled() -> Iterator[Signals]:
    """Handle signals until the block ends."""
    wake, written = socket.socketpair()
    with wake, written:
        written.settimeout(0)
        signals = Signals(wake, on_terminal=any(map(os.isatty, STANDARD_STREAMS)))
        # One more byte than fits would be a signal on top of thousands that wait already.
        wakeup = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        earlier = {number: signal.getsignal(number) for number in HANDLED}
        try:
            for number, handler in earlier.items():
                # What was told to outlive its terminal, by nohup, goes on to do so.
                if number != signal.SIGHUP or handler != signal.SIG_IGN:
                    signal.signal(number, signals.handle)
            yield signals
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
