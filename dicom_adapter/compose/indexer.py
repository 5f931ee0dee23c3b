"""Puts what is kept into the index: reads each file once, beside receiving and never before it."""

import time
from datetime import datetime, timedelta

from dicom_adapter.clock import Clock
from dicom_adapter.compose.description import description_of
from dicom_adapter.ledger import Ledger, index, index_search
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import Description, StoredInstance
from dicom_adapter.worker import Worker

# While instances come, so few in so long take a fortieth of a processor: the index is to be late by
# a moment, not the answers to senders. Once none has come for a while, it takes all there is.
INSTANCES_PER_COMMIT = 10
REST = timedelta(milliseconds=500)
QUIET_SECONDS = 1.0


class Indexer:
    """Reads what is named to the index, in a thread of its own."""

    def __init__(self, ledger: Ledger, clock: Clock, locate: Locate) -> None:
        self._ledger = ledger
        self._locate = locate
        self._worker = Worker("indexer", self._work, clock, rest=REST)
        self._clock = clock
        self._last_came = time.monotonic()
        self._after = ""
        self._failed: OSError | None = None

    def start(self) -> None:
        """Start with what an earlier run left."""
        self._worker.start()

    def wake(self) -> None:
        """Look for what is to be indexed soon: something came."""
        self._last_came = time.monotonic()
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current batch end, then stop."""
        self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        self._after, self._failed = "", None
        while self._index_some():
            if self._worker.stopping:
                return None
            if time.monotonic() - self._last_came < QUIET_SECONDS:
                return self._clock.now()
        if self._failed is not None:
            raise self._failed
        return None

    def _index_some(self) -> bool:
        """Index what waits for it longest; True when there may be more."""
        with self._ledger.read() as tx:
            waiting = index_search.waiting(tx, INSTANCES_PER_COMMIT, self._locate, self._after)
        if not waiting:
            return False
        found: list[tuple[StoredInstance, Description]] = []
        gone = []
        for instance in waiting:
            try:
                found.append((instance, description_of(instance)))
            except FileNotFoundError:
                # The check of the spool tells of it, where it should be there.
                gone.append(instance.id)
            except OSError as error:
                # It is tried again after a pause; what is behind it does not wait for it.
                self._failed = error
            self._after = max(self._after, instance.id)
        with self._ledger.write() as tx:
            index.add(tx, found, gone)
        return len(waiting) == INSTANCES_PER_COMMIT
