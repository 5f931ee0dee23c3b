"""Makes the ledger know what is durable in the spool."""

import threading
from collections.abc import Sequence

from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.model import Received, Recorded


class _Waiting:
    """Instances that somebody waits for to be recorded."""

    def __init__(self, received: Sequence[Received]) -> None:
        self.received = received
        self.recorded: list[Recorded] | None = None
        self.error: Exception | None = None


class Recorder:
    """Records instances; those of several receiving processes together, in one commit."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[_Waiting] = []
        self._adding = threading.Lock()
        self._committing = threading.Lock()

    def record(self, received: Sequence[Received]) -> list[Recorded]:
        """Record instances; tell what was made of each.

        Raises:
            UnavailableError: the ledger cannot be written now.
        """
        mine = _Waiting(received)
        with self._adding:
            self._waiting.append(mine)
        # Whoever comes while another one commits finds all of them recorded, or records them all.
        with self._committing:
            if mine.recorded is None and mine.error is None:
                self._commit()
        if mine.error is not None:
            raise mine.error
        return mine.recorded or []

    def _commit(self) -> None:
        with self._adding:
            batch, self._waiting = self._waiting, []
        try:
            with self._ledger.write() as tx:
                told = iter(instances.record(tx, [r for w in batch for r in w.received]))
        except Exception as error:  # noqa: BLE001 - handed to each who waits for it
            for waiting in batch:
                waiting.error = error
            return
        for waiting in batch:
            waiting.recorded = [next(told) for _ in waiting.received]
