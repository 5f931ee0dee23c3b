"""When a job processor sees to what it keeps."""

from datetime import datetime, timedelta

from dicom_adapter.clock import Clock
from dicom_adapter.ledger import Ledger
from dicom_adapter.processor.base import JobProcessorBase
from dicom_adapter.processor.calls import Call, Calls, applied

# It looks at all that is kept, so while instances come it does so no more often.
_SHORTEST_PAUSE = timedelta(seconds=1)
_AFTER_FAILURE = timedelta(seconds=30)


class Tending:
    """Calls `tend` of a processor, which is called by nobody else meanwhile."""

    def __init__(
        self, processor: JobProcessorBase, calls: Calls, ledger: Ledger, clock: Clock
    ) -> None:
        self._processor = processor
        self._calls = calls
        self._ledger = ledger
        self._clock = clock
        self._is_wanted = type(processor).tend is not JobProcessorBase.tend
        self._not_before = clock.now()
        #: When it is called next; None: not before it is wanted.
        self._at: datetime | None = self._not_before

    def want(self) -> None:
        """Have it called soon: something was handled."""
        self._at = self._not_before

    def work(self) -> tuple[datetime | None, BaseException | None]:
        """Call it, if it is time; return when it is to be called next, and what went wrong."""
        if not self._is_wanted:
            return None, None
        now = self._clock.now()
        if self._at is None or self._at > now:
            return self._at, None
        asked: list[float | None] = []
        call = self._calls.make(lambda: asked.append(self._processor.tend(now)))
        error = call.error or self._carried_out(call)
        self._not_before = now + _SHORTEST_PAUSE
        if error is not None:
            self._at = now + _AFTER_FAILURE
        elif asked[0] is None:
            self._at = None
        else:
            self._at = max(self._not_before, now + timedelta(seconds=min(asked[0], 1e9)))
        return self._at, error

    def _carried_out(self, call: Call) -> Exception | None:
        with self._ledger.write() as tx:
            error = applied(tx, lambda tx: self._calls.carry_out(tx, [call]))
        if error is None:
            self._calls.committed([call])
        return error
