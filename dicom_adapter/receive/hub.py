"""What receiving processes ask of the one that keeps the ledger, and how.

Each has two pipes to it: one for its sockets' thread, which asks who may come in, and one for its
keeper's, which has instances recorded and may wait for the disk. A question is a method's name with
its arguments; every answer is awaited, except where nothing is to be said.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import structlog

from dicom_adapter.errors import UnavailableError, fingerprint
from dicom_adapter.model import Received, Recorded
from dicom_adapter.receive.admission import Gate
from dicom_adapter.receive.policy import Caller, Refusal, Title
from dicom_adapter.receive.recorder import Recorder

# Association numbers are given out in such portions.
_NUMBERS = 256

log = structlog.get_logger()


class Hub:
    """Answers the receiving processes; each pipe is served in a thread of its own."""

    def __init__(
        self, gate: Gate, recorder: Recorder, numbers: Iterator[int], stored: Callable[[str], None]
    ) -> None:
        self._gate = gate
        self._recorder = recorder
        self._numbers = numbers
        self._stored = stored

    def serve_gate(self, pipe: Connection) -> None:
        """Answer until the process is gone; then whoever it had let in is outside again."""
        inside: list[Caller] = []
        try:
            while True:
                question, argument = pipe.recv()
                if question == "admit":
                    decision = self._gate.admit(argument)
                    if not isinstance(decision, Refusal):
                        inside.append(argument)
                    pipe.send(decision)
                elif question == "leave":
                    inside.remove(argument)
                    self._gate.leave(argument)
                elif question == "remember":
                    self._gate.remember(*argument)
                elif question == "stored":
                    self._stored(argument)
                else:
                    pipe.send(list(itertools.islice(self._numbers, _NUMBERS)))
        except (EOFError, OSError):
            for caller in inside:
                self._gate.leave(caller)

    def serve_recorder(self, pipe: Connection) -> None:
        """Record until the process is gone."""
        try:
            while True:
                durable = pipe.recv()
                try:
                    answer: list[Recorded] | Exception = self._recorder.record(durable)
                except UnavailableError as error:
                    answer = error
                except Exception as error:  # noqa: BLE001 - it must be answered, or it waits for ever
                    log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                        "instances not recorded: internal error",
                        action="recorder.failed",
                        **fingerprint(error),
                    )
                    answer = UnavailableError("ledger: internal error")
                pipe.send(answer)
        except (EOFError, OSError):
            return


class RemoteGate:
    """The gate, and what else the sockets' thread of a receiving process asks for."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def admit(self, caller: Caller) -> Title | Refusal:
        """Return the AE title that a caller reaches, and count it as inside; or the refusal."""
        decision: Title | Refusal = self._ask("admit", caller)
        return decision

    def leave(self, caller: Caller) -> None:
        """Count a caller that was admitted as outside again."""
        self._tell("leave", caller)

    def remember(self, caller: Caller, why: str) -> None:
        """Keep why a caller does not get through, with what it sends, for people who ask."""
        self._tell("remember", (caller, why))

    def stored(self, ae_title: str) -> None:
        """Tell that an AE title has a new instance."""
        self._tell("stored", ae_title)

    def numbers(self) -> Iterator[int]:
        """Yield a number for each association, such as no other process has."""
        while True:
            yield from self._ask("numbers", None)

    def _tell(self, news: str, argument: object) -> None:
        # Without a service this process is about to end.
        with suppress(OSError):
            self._pipe.send((news, argument))

    def _ask(self, question: str, argument: object) -> Any:  # noqa: ANN401 - as the question has it
        self._pipe.send((question, argument))
        return self._pipe.recv()


class RemoteRecorder:
    """The recorder, for the keeper's thread of a receiving process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def record(self, durable: Sequence[Received]) -> Sequence[Recorded]:
        """Record instances; tell what was made of each.

        Raises:
            UnavailableError: the ledger cannot be written now.
        """
        try:
            self._pipe.send(durable)
            answer: list[Recorded] | UnavailableError = self._pipe.recv()
        except (EOFError, OSError):
            # The service is gone, and nobody here knows whether it has recorded them. So the files
            # must stay, and nothing may be answered: this ends as if both had crashed together.
            os._exit(1)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer
