"""Time, so that everything that waits can be given another clock."""

import threading
from datetime import UTC, datetime
from typing import Protocol

# A wall clock may be stepped while a thread waits, so no wait trusts one reading for longer.
LONGEST_WAIT_SECONDS = 60.0


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def wait(self, event: threading.Event, until: datetime | None) -> None:
        """Return when the event is set, when `until` has come, or a little before; never late."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC)

    def wait(self, event: threading.Event, until: datetime | None) -> None:
        """Return when the event is set, when `until` has come, or a little before; never late."""
        if until is None:
            event.wait()
            return
        seconds = (until - self.now()).total_seconds()
        if seconds > 0:
            event.wait(min(seconds, LONGEST_WAIT_SECONDS))
