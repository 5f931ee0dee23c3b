"""Puts what is kept into the index: reads each file once, beside receiving and never before it."""

from datetime import datetime, timedelta

from dicom_adapter.clock import Clock
from dicom_adapter.compose.description import description_of
from dicom_adapter.ledger import Ledger, index, index_search
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import Description, StoredInstance
from dicom_adapter.worker import Worker

# So few at a time, with a rest behind them, take a tenth of a processor while a study comes in: the
# index is to be late by a moment, not the answers to senders.
INSTANCES_PER_COMMIT = 25
REST = timedelta(milliseconds=100)


class Indexer:
    """Reads what is named to the index, in a thread of its own."""

    def __init__(self, ledger: Ledger, clock: Clock, locate: Locate) -> None:
        self._ledger = ledger
        self._locate = locate
        self._worker = Worker("indexer", self._work, clock, rest=REST)
        self._clock = clock

    def start(self) -> None:
        """Start with what an earlier run left."""
        self._worker.start()

    def wake(self) -> None:
        """Look for what is to be indexed soon."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current batch end, then stop."""
        self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        with self._ledger.read() as tx:
            waiting = index_search.waiting(tx, INSTANCES_PER_COMMIT, self._locate)
        if not waiting:
            return None
        found: list[tuple[StoredInstance, Description]] = []
        gone = []
        for instance in waiting:
            try:
                found.append((instance, description_of(instance)))
            except FileNotFoundError:
                # The check of the spool tells of it, where it should be there.
                gone.append(instance.id)
        with self._ledger.write() as tx:
            index.add(tx, found, gone)
        return None if len(waiting) < INSTANCES_PER_COMMIT else self._clock.now()
