"""Where the thread of a pynetdicom association waits while somebody else waits for an answer.

pynetdicom stops that thread before a request is sent, or it would take the answer away. It looks at
a flag for that, which is also set while the thread is just going on: then, on a busy machine, the
answer is lost, and the request fails with a time-out. This is the one place that knows of it.
"""

import threading
from typing import cast

from pynetdicom.association import Association

# The thread comes by every millisecond; one that does not come any more has ended.
_LOOK_SECONDS = 0.1


def steady(association: Association) -> None:
    """Have an association's requests wait until its thread really stands still."""
    checkpoint = _Checkpoint(association)
    association._reactor_checkpoint = cast("threading.Event", checkpoint)  # noqa: SLF001 - see above


class _Checkpoint:
    """What pynetdicom uses of an Event; `clear` returns when whoever comes by waits here."""

    def __init__(self, comes_by: threading.Thread) -> None:
        self._comes_by = comes_by
        self._changed = threading.Condition()
        self._is_open = True
        self._is_waiting = False

    def wait(self) -> None:
        """Wait here until it is open."""
        with self._changed:
            while not self._is_open:
                self._is_waiting = True
                self._changed.notify_all()
                self._changed.wait()
            self._is_waiting = False

    def set(self) -> None:
        """Let whoever waits go on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Close it, and wait until somebody waits here."""
        with self._changed:
            self._is_open = False
            # The thread itself, where it releases the association, waits for nobody.
            while not self._is_waiting and threading.current_thread() is not self._comes_by:
                if not self._comes_by.is_alive() or self._is_open:
                    return
                self._changed.wait(_LOOK_SECONDS)
