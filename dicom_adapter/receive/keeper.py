"""Who keeps finished receptions: has them made durable, and tells of each when it is done.

Whatever has come meanwhile is kept together: flushes and commits are shared by the senders that
wait for them, and a lone one waits for nobody.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from dicom_adapter.errors import fingerprint
from dicom_adapter.receive.intake import Intake, Outcome, Reception
from dicom_adapter.receive.loop import Loop

# More at a time would make the first wait for the last.
MOST_AT_A_TIME = 64

Done = Callable[[Outcome], None]

log = structlog.get_logger()


class Keeper(ABC):
    """Keeps receptions; it is used, and tells, in the loop's thread."""

    def __init__(self, intake: Intake, loop: Loop) -> None:
        self._intake = intake
        self._loop = loop

    @abstractmethod
    def stop(self) -> None:
        """Keep what is waiting, and end; what is told of it is posted to the loop."""

    @abstractmethod
    def keep(self, reception: Reception, done: Done) -> None:
        """Have a finished reception kept; `done` is called when it is."""

    def _outcomes(self, batch: list[tuple[Reception, Done]]) -> list[Outcome]:
        try:
            return self._intake.keep([reception for reception, _ in batch])
        except Exception as error:  # noqa: BLE001 - the last guard: the senders must be answered
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "instances not stored: internal error",
                action="keeper.failed",
                **fingerprint(error),
            )
            return [Outcome(error=error)] * len(batch)


class PromptKeeper(Keeper):
    """Keeps at the end of each turn of the loop, in its thread: where nothing waits for the disk.

    Handing over to another thread and back would cost as much as what it does.
    """

    def __init__(self, intake: Intake, loop: Loop) -> None:
        super().__init__(intake, loop)
        self._waiting: list[tuple[Reception, Done]] = []

    def keep(self, reception: Reception, done: Done) -> None:
        """Have a finished reception kept; `done` is called when it is."""
        if not self._waiting:
            self._loop.post(self._keep)
        self._waiting.append((reception, done))

    def stop(self) -> None:
        """Nothing to do: each turn of the loop ends with nothing waiting."""

    def _keep(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            for (_, done), outcome in zip(batch, self._outcomes(batch), strict=True):
                done(outcome)
        finally:
            # While the senders read their answers.
            _discard(batch)


class PatientKeeper(Keeper):
    """Keeps in a thread of its own, which waits for the disk so that the sockets need not."""

    def __init__(self, intake: Intake, loop: Loop) -> None:
        super().__init__(intake, loop)
        self._waiting: list[tuple[Reception, Done]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Keep what is waiting, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def keep(self, reception: Reception, done: Done) -> None:
        """Have a finished reception kept; `done` is called when it is."""
        with self._changed:
            self._waiting.append((reception, done))
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next():
            for (_, done), outcome in zip(batch, self._outcomes(batch), strict=True):
                self._loop.post(partial(done, outcome))
            _discard(batch)

    def _next(self) -> list[tuple[Reception, Done]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch = self._waiting[:MOST_AT_A_TIME]
            del self._waiting[:MOST_AT_A_TIME]
            return batch


def _discard(batch: Sequence[tuple[Reception, Done]]) -> None:
    for reception, _ in batch:
        reception.discard()
