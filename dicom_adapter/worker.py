"""A thread that sleeps until it is woken or its own next time has come; it never polls."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import fingerprint

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=30)

log = structlog.get_logger()


class Worker:
    """Runs `work` again and again in a thread of its own.

    `work` does all that is due now and returns the time when it wants to be called next, or None to
    be called only when woken. What it raises is logged, and it is called again after a pause that
    grows from 1 s to 30 s: a worker never dies while the service runs. After each call it has a
    rest, so that what comes meanwhile is done together; that is real time, whatever the clock says.
    `last` is called once, in the same thread, when it ends.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], datetime | None],
        clock: Clock,
        *,
        rest: timedelta = timedelta(0),
        last: Callable[[], None] | None = None,
    ) -> None:
        self._work = work
        self._last = last
        self._clock = clock
        self._rest = rest.total_seconds()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._pause = FIRST_PAUSE
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called; long work looks here between its steps."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; it works at once."""
        self._thread.start()

    def wake(self) -> None:
        """Have `work` called soon."""
        self._wake.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Let the current `work` end, then end the thread; True when it has ended in time."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self.stopping:
            # Cleared before the work, not after it: a wake-up during the work is then kept.
            self._wake.clear()
            until = self._call()
            if not self._stopping.wait(self._rest):
                self._clock.wait(self._wake, until)
        if self._last is not None:
            self._last()

    def _call(self) -> datetime | None:
        try:
            until = self._work()
        except Exception as error:  # noqa: BLE001 - the last guard of a thread that must go on
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "worker failed; it goes on after a pause",
                action="worker.failed",
                worker=self._thread.name,
                pause_seconds=self._pause.total_seconds(),
                **fingerprint(error),
            )
            until = self._clock.now() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        else:
            self._pause = FIRST_PAUSE
        return until
