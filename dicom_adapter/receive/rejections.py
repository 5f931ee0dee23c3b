"""What was rejected lately, for those who ask why a sender does not get through."""

import threading
from collections import OrderedDict
from dataclasses import replace

from dicom_adapter.clock import Clock
from dicom_adapter.model import Rejection
from dicom_adapter.receive.policy import Caller

REMEMBERED = 200


class Rejections:
    """Rejections of associations, of instances, or of all that was proposed for storage."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str, str, str], Rejection] = OrderedDict()

    def remember(self, caller: Caller, why: str) -> None:
        """Note one, as a new one or one more of its kind.

        The reason is shown to people: nothing of a data set may be in it.
        """
        seen = (caller.called_ae_title, caller.calling_ae_title, caller.address, why)
        with self._lock:
            known = self._seen.pop(seen, None)
            now = self._clock.now()
            self._seen[seen] = (
                Rejection(*seen, count=1, last_at=now)
                if known is None
                else replace(known, count=known.count + 1, last_at=now)
            )
            # Bounded: whoever scans the port must not fill the memory.
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)

    def all(self) -> tuple[Rejection, ...]:
        """Return what was rejected since the start, the newest last."""
        with self._lock:
            return tuple(self._seen.values())
