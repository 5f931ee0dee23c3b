"""Keeps the leases of the jobs that run here; one thread and one statement for all of them."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import Ledger, leases
from dicom_adapter.worker import Worker

# Several may fail, and the machine may be slow, before a lease runs out.
HEARTBEAT = leases.LEASE / 4
RETRY = timedelta(seconds=1)

log = structlog.get_logger()


class Heartbeat:
    """Renews leases while there are any; it sleeps while there are none."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        held: Callable[[], list[str]],
        lost: Callable[[set[str]], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._held = held
        self._lost = lost
        self._failing = False
        self._next: datetime | None = None
        self._worker = Worker("heartbeat", self._renew, clock)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def wake(self) -> None:
        """Begin to renew: there is a lease now."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """End the thread; what is held still runs out in its time."""
        self._worker.stop(timeout)

    def _renew(self) -> datetime | None:
        held = self._held()
        if not held:
            return None
        at = self._clock.now()
        if self._next is not None and at < self._next <= at + HEARTBEAT:
            # Whatever was claimed since then has a lease that lasts longer.
            return self._next
        try:
            with self._ledger.write() as tx:
                renewed = leases.renew(tx, held, at)
        except UnavailableError:
            self._note(failing=True)
            self._next = None
            return self._clock.now() + RETRY
        self._note(failing=False)
        taken = set(held) - renewed
        if taken:
            self._lost(taken)
        # From when it was renewed, however long that took.
        self._next = at + HEARTBEAT
        return self._next

    def _note(self, *, failing: bool) -> None:
        if failing and not self._failing:
            log.warning(
                "the leases of running jobs cannot be renewed; it is tried again",
                action="lease.not_renewed",
            )
        elif self._failing and not failing:
            log.info("the leases of running jobs are renewed again", action="lease.renewed")
        self._failing = failing
