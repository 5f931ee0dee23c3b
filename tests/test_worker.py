"""A thread that works when it is woken, or when its time has come."""

import threading
import time
from datetime import datetime, timedelta

from dicom_adapter.worker import Worker
from tests.support import PATIENCE, ManualClock


def test_what_comes_during_the_rest_is_done_after_it() -> None:
    """However often it is woken in a rest, it works once more; the clock may stand still."""
    calls = []
    again = threading.Event()

    def work() -> datetime | None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            for _ in range(10):
                worker.wake()
        else:
            again.set()
        return None

    worker = Worker("test", work, ManualClock(), rest=timedelta(seconds=0.1))
    worker.start()
    assert again.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    first, second = calls
    assert second - first >= 0.1


def test_a_stop_waits_for_no_rest() -> None:
    """A worker that rests ends at once when it is stopped."""
    worked = threading.Event()

    def work() -> datetime | None:
        worked.set()
        return None

    worker = Worker("test", work, ManualClock(), rest=timedelta(days=1))
    worker.start()
    assert worked.wait(PATIENCE)
    assert worker.stop(PATIENCE)
