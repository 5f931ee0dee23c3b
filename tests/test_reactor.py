"""What stands between a request and the thread that would take its answer."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from pynetdicom.association import Association

from dicom_adapter.reactor import steady
from tests.support import PATIENCE, association, make_instance, running


class Loop(threading.Thread):
    """Goes by a checkpoint as the thread of an association does, and counts how often."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._reactor_checkpoint = threading.Event()
        self.ended = False
        self.passed = 0

    def run(self) -> None:
        """Go by it until it is to end."""
        while not self.ended:
            self._reactor_checkpoint.wait()
            self.passed += 1


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A thread that goes by a checkpoint."""
    made = Loop()
    # It has what counts of an association.
    steady(cast("Association", made))
    made.start()
    yield made
    made.ended = True
    made._reactor_checkpoint.set()  # noqa: SLF001 - as pynetdicom does
    made.join(PATIENCE)


def test_once_it_is_closed_nobody_goes_by(loop: Loop) -> None:
    """Also where it was opened a moment before: whoever is about to go on stays."""
    for _ in range(500):
        loop._reactor_checkpoint.clear()  # noqa: SLF001 - as pynetdicom does
        before = loop.passed
        threading.Event().wait(0.0005)
        assert loop.passed == before
        loop._reactor_checkpoint.set()  # noqa: SLF001 - as pynetdicom does


def test_a_thread_that_has_ended_is_not_waited_for(loop: Loop) -> None:
    """It comes by no more."""
    loop.ended = True
    loop._reactor_checkpoint.set()  # noqa: SLF001 - as pynetdicom does
    loop.join(PATIENCE)
    loop._reactor_checkpoint.clear()  # noqa: SLF001 - as pynetdicom does


def test_pynetdicom_stops_its_thread_by_what_we_exchange() -> None:
    """The names that this relies on, in the version that is pinned."""
    made = Association.__init__.__code__.co_names
    assert {"_reactor_checkpoint", "_is_paused"} <= set(made)


def test_no_answer_is_lost_where_threads_take_turns_at_random(tmp_path: Path) -> None:
    """Hundreds of requests over one association, while each step may be another thread's."""
    before = sys.getswitchinterval()
    with running(tmp_path) as adapter, association(adapter.port) as opened:
        instance = make_instance()
        sys.setswitchinterval(1e-6)
        try:
            statuses = {opened.send_c_store(instance).get("Status") for _ in range(300)}
        finally:
            sys.setswitchinterval(before)
    assert statuses == {0}
