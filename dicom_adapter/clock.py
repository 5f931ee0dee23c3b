"""Time, so that everything that waits can be given another clock."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

# A machine may sleep while a thread waits, so no wait is for longer.
LONGEST_WAIT_SECONDS = 60.0
# NTP corrects a clock by less. By more it is set, and then nothing may become due for it.
LARGEST_CORRECTION = timedelta(minutes=1)


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def was_set_by(self) -> timedelta:
        """Return how far the machine's clock is ahead of this one, since somebody has set it."""
        ...

    def wait(self, event: threading.Event, until: datetime | None) -> None:
        """Return when the event is set, when `until` has come, or a little before; never late."""
        ...


class SystemClock:
    """The machine's own clock, as it was at the start.

    It follows small corrections. Where the machine's clock is set while the service runs, this one
    goes on as before: no group closes early or waits for an hour, and nothing is reclaimed early.
    """

    def __init__(self, told: datetime | None = None) -> None:
        """Begin with the time of another clock, or with the machine's."""
        self._anchor = (told or datetime.now(UTC), _elapsed())

    def now(self) -> datetime:
        """Return the time, in UTC."""
        machines, elapsed = datetime.now(UTC), _elapsed()
        ours = self._since_anchor(elapsed)
        if abs(machines - ours) > LARGEST_CORRECTION:
            return ours
        self._anchor = (machines, elapsed)
        return machines

    def was_set_by(self) -> timedelta:
        """Return how far the machine's clock is ahead of this one, since somebody has set it."""
        away = datetime.now(UTC) - self._since_anchor(_elapsed())
        return away if abs(away) > LARGEST_CORRECTION else timedelta()

    def _since_anchor(self, elapsed: float) -> datetime:
        at, elapsed_then = self._anchor
        return at + timedelta(seconds=elapsed - elapsed_then)

    def wait(self, event: threading.Event, until: datetime | None) -> None:
        """Return when the event is set, when `until` has come, or a little before; never late."""
        if until is None:
            event.wait()
            return
        seconds = (until - self.now()).total_seconds()
        if seconds > 0:
            event.wait(min(seconds, LONGEST_WAIT_SECONDS))


def _elapsed() -> float:
    # Nobody can set it, and it goes on while the machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
