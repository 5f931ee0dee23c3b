"""A connection to another platform that is tried until it answers, or nobody wants an answer."""

import threading
from collections.abc import Callable
from typing import TypeVar

from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.rpc.client import Client

# Between two attempts: doubled after each, up to the longest.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0

_Answer = TypeVar("_Answer")


class CutError(DicomAdapterError):
    """Nobody wants an answer any more."""


class Line:
    """Calls another platform as long as it takes; another thread may cut it off."""

    def __init__(
        self,
        connect: Callable[[], Client],
        silent: Callable[[str], None],
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """Name how it is reached, and who is told of each attempt without an answer, and why."""
        self._longest_pause = longest_pause
        self._connect = connect
        self._silent = silent
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._client: Client | None = None

    def call(
        self,
        ask: Callable[[Client], _Answer],
        *passing: type[DicomAdapterError],
    ) -> _Answer:
        """Return the answer, as soon as there is one; `passing` are refusals that may end.

        Raises:
            CutError: the line was cut.
            CannotStartError: the other platform is not configured any more.
            DicomAdapterError: it refuses.
        """
        pause = FIRST_PAUSE_SECONDS
        again: tuple[type[DicomAdapterError], ...] = (UnavailableError, *passing)
        while True:
            try:
                return self._once(ask)
            except again as error:
                if self._cut.is_set():
                    raise CutError from error
                self._silent(str(error))
            # gRPC itself would try a broken connection again by a rhythm of its own.
            self._hang_up()
            self.rest(pause)
            pause = min(2 * pause, self._longest_pause)

    def _once(self, ask: Callable[[Client], _Answer]) -> _Answer:
        with self._lock:
            if self._cut.is_set():
                raise CutError
            client = self._client = self._client or self._connect()
        try:
            return ask(client)
        except ValueError as error:
            # What gRPC says of a connection that was closed meanwhile.
            if self._cut.is_set():
                raise CutError from error
            raise

    def rest(self, seconds: float) -> None:
        """Wait a while; raises CutError as soon as the line is cut."""
        if self._cut.wait(seconds):
            raise CutError

    def cut(self) -> None:
        """Have whoever calls give up at once."""
        self._cut.set()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
