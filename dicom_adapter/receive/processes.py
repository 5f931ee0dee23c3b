"""Several processes that receive: started, given their orders, and replaced when one dies.

They share the listening sockets, which this process keeps open: what dies takes no port along, and
whoever waits to be accepted is accepted by another one.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import LogSettings
from dicom_adapter.errors import StartError
from dicom_adapter.files import Flush
from dicom_adapter.receive.hub import Hub
from dicom_adapter.receive.policy import Rules
from dicom_adapter.receive.spool import Spool

#: How long a process may take until it accepts, or to end after its grace, in seconds.
PATIENCE_SECONDS = 30.0
# One that dies at once is started again, but not in a circle that burns the processor.
_PAUSE_SECONDS = 1.0
_MODULE = "dicom_adapter.receive.process"

log = structlog.get_logger()


@dataclass(frozen=True)
class Place:
    """Where a receiving process stores."""

    spool: Path
    flush: Flush
    process: int


@dataclass(frozen=True)
class Orders:
    """What a receiving process is to go by; a new socket for each new port follows."""

    rules: Rules
    #: All ports that are to be accepted on, and those of them whose sockets follow, in order.
    ports: tuple[int, ...]
    new: tuple[int, ...]


@dataclass(frozen=True)
class Stop:
    """The order to end, and how long associations may take for it, in seconds."""

    grace: float


class Processes:
    """The receiving processes; to be used as `Listener` is."""

    def __init__(
        self, count: int, hub: Hub, spool: Spool, clock: Clock, log_settings: LogSettings
    ) -> None:
        self._children = [
            _Child(hub, Place(spool.folder, spool.flush, number), clock, log_settings)
            for number in range(1, count + 1)
        ]

    def start(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        """Start the processes, and wait until they accept on these sockets.

        Raises:
            StartError: one has not begun to accept in time.
        """
        for child in self._children:
            child.reload(rules, sockets)
            child.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        if not all(child.accepts.wait(deadline - time.monotonic()) for child in self._children):
            self.stop(0)
            raise StartError(
                "a receiving process has not started in time: see the log, or set dicom.processes "
                "to 1"
            )

    def reload(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        """Go by other rules from now on; associations keep those that they began with."""
        for child in self._children:
            child.reload(rules, sockets)

    def stop(self, grace: float) -> None:
        """Let associations end for `grace` seconds, then abort the rest."""
        for child in self._children:
            child.stop(grace)
        deadline = time.monotonic() + grace + PATIENCE_SECONDS
        for child in self._children:
            child.join(max(0.0, deadline - time.monotonic()))


class _Child:
    """One receiving process, and the one that replaces it when it dies."""

    def __init__(self, hub: Hub, place: Place, clock: Clock, log_settings: LogSettings) -> None:
        self._hub = hub
        self._place = place
        self._clock = clock
        self._log_settings = log_settings
        self.accepts = threading.Event()
        self._stopping = threading.Event()
        # Orders may be changed by a reload while a new process is being started.
        self._lock = threading.Lock()
        self._orders: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._told: set[int] = set()
        self._thread = threading.Thread(
            target=self._run, name=f"receiving process {place.process}", daemon=True
        )

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def reload(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        """Have the process go by these rules, and those that replace it."""
        with self._lock:
            self._rules, self._sockets = rules, dict(sockets)
            self._tell()

    def stop(self, grace: float) -> None:
        """Order the process to end."""
        self._stopping.set()
        with self._lock, suppress(OSError):
            if self._orders is not None:
                self._orders.send(Stop(grace))

    def join(self, timeout: float) -> None:
        """Wait until it has ended; end it when it has not in time."""
        self._thread.join(timeout)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()

    def _tell(self) -> None:
        """Tell the process its orders, if there is one; one that is dying is replaced anyway."""
        if self._orders is None or self._process is None:
            return
        with suppress(OSError):
            new = tuple(port for port in self._sockets if port not in self._told)
            self._orders.send(Orders(self._rules, tuple(self._sockets), new))
            for port in new:
                send_handle(self._orders, self._sockets[port].fileno(), self._process.pid)
            self._told = set(self._sockets)

    def _run(self) -> None:
        while not self._stopping.is_set():
            code = self._live()
            if not self._stopping.is_set():
                log.error(
                    "receiving process ended: it is replaced, its associations are lost",
                    action="process.replaced",
                    process=self._place.process,
                    code=code,
                )
                self._stopping.wait(_PAUSE_SECONDS)

    def _live(self) -> int:
        """Start a process, answer it, and return its exit code."""
        ours, theirs = zip(*(Pipe() for _ in range(3)), strict=True)
        orders, gate, recorder = ours
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", _MODULE, *(str(pipe.fileno()) for pipe in theirs)],
            pass_fds=[pipe.fileno() for pipe in theirs],
            stdin=subprocess.DEVNULL,
        )
        for pipe in theirs:
            pipe.close()
        serving = [
            threading.Thread(target=self._hub.serve_gate, args=(gate,), daemon=True),
            threading.Thread(target=self._hub.serve_recorder, args=(recorder,), daemon=True),
        ]
        for thread in serving:
            thread.start()
        with self._lock:
            self._orders, self._process, self._told = orders, process, set()
            with suppress(OSError):
                orders.send((self._place, self._clock.now(), self._log_settings))
            self._tell()
        with suppress(EOFError, OSError):
            orders.recv()
            self.accepts.set()
        if self._stopping.is_set():
            # Told before there was a process to tell it to.
            with suppress(OSError):
                orders.send(Stop(0))
        code = process.wait()
        with self._lock:
            self._orders = None
        for thread in serving:
            thread.join()
        for pipe in ours:
            pipe.close()
        return code
