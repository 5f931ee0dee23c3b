"""The thread that waits for the disk and the ledger, so that the sockets need not.

Whatever has come while it waited is kept together next time: flushes and commits are shared by the
senders that wait for them, and a lone one waits for nobody.
"""

import threading
from collections.abc import Callable

import structlog

from dicom_adapter.errors import fingerprint
from dicom_adapter.receive.intake import Intake, Outcome, Reception

# More at a time would make the first wait for the last.
MOST_AT_A_TIME = 64

Done = Callable[[Outcome], None]

log = structlog.get_logger()


class Keeper:
    """Keeps receptions, and tells of each when it is done, in its own thread."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._waiting: list[tuple[Reception, Done]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Keep what is waiting, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def keep(self, reception: Reception, done: Done) -> None:
        """Have a finished reception kept; `done` is then called from the keeper's thread."""
        with self._changed:
            self._waiting.append((reception, done))
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next():
            for (_, done), outcome in zip(batch, self._outcomes(batch), strict=True):
                done(outcome)

    def _next(self) -> list[tuple[Reception, Done]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch = self._waiting[:MOST_AT_A_TIME]
            del self._waiting[:MOST_AT_A_TIME]
            return batch

    def _outcomes(self, batch: list[tuple[Reception, Done]]) -> list[Outcome]:
        try:
            return self._intake.keep([reception for reception, _ in batch])
        except Exception as error:  # noqa: BLE001 - the last guard of a thread that must go on
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "instances not stored: internal error",
                action="keeper.failed",
                **fingerprint(error),
            )
            return [Outcome(error=error)] * len(batch)
