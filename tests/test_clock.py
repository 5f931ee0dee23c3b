"""The service's clock follows corrections of the machine's, and does not where that is set."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_adapter import clock
from dicom_adapter.clock import SystemClock
from tests.support import SUCCESS, make_instance, running, send

HOUR = timedelta(hours=1)
A_LITTLE = timedelta(seconds=10)


class Machine:
    """A machine whose clock can be set: it stands in for `datetime` in the module."""

    def __init__(self) -> None:
        self.set_by = timedelta()

    def now(self, zone: object) -> datetime:
        """Return the machine's time."""
        assert zone is UTC
        return datetime.now(UTC) + self.set_by


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine that all clocks of this test are on."""
    made = Machine()
    monkeypatch.setattr(clock, "datetime", made)
    return made


def away(own: SystemClock) -> timedelta:
    """Return how far a clock is ahead of the real time, to the second."""
    return timedelta(seconds=round((own.now() - datetime.now(UTC)).total_seconds()))


@pytest.mark.parametrize("set_by", [HOUR, -HOUR, timedelta(days=4000)])
def test_a_clock_that_is_set_changes_nothing(machine: Machine, set_by: timedelta) -> None:
    """Time goes on as before, and it is known by how much the machine's differs."""
    own = SystemClock()
    machine.set_by = set_by
    assert away(own) == timedelta()
    assert abs(own.was_set_by() - set_by) < timedelta(seconds=1)
    machine.set_by = timedelta()
    assert (away(own), own.was_set_by()) == (timedelta(), timedelta())


@pytest.mark.parametrize("by", [A_LITTLE, -A_LITTLE])
def test_corrections_are_followed(machine: Machine, by: timedelta) -> None:
    """However far they have come in the end."""
    own = SystemClock()
    for times in range(1, 20):
        machine.set_by = times * by
        assert away(own) == times * by
        assert own.was_set_by() == timedelta()


def test_a_clock_goes_by_what_it_was_told(machine: Machine) -> None:
    """A process that is started later has the same time as the others."""
    first = SystemClock()
    machine.set_by = HOUR
    assert away(SystemClock(first.now())) == timedelta()
    assert away(SystemClock()) == HOUR


@pytest.mark.parametrize("set_by", [HOUR, -HOUR])
def test_nobody_waits_longer_for_a_clock_that_is_set(machine: Machine, set_by: timedelta) -> None:
    """A wait ends when so much time has passed."""
    own = SystemClock()
    until, before = own.now() + timedelta(seconds=0.2), time.monotonic()
    machine.set_by = set_by
    own.wait(threading.Event(), until)
    assert 0.1 < time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("set_by", "told"), [(HOUR, "ahead by 1:00:00"), (-2 * HOUR, "back by 2:00:00")]
)
def test_a_study_is_not_torn_by_a_clock_that_is_set(
    tmp_path: Path, machine: Machine, set_by: timedelta, told: str
) -> None:
    """While a group waits, the clock is set: it waits as long as it should; `status` tells."""
    with running(tmp_path) as adapter:
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
        adapter.grouped(1)
        before = time.monotonic()
        machine.set_by = set_by
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
        (job,) = adapter.ended_jobs(1)
        assert 4.5 < time.monotonic() - before < 20
        (line,) = adapter.service.status().attention
    assert job.instances == 2
    assert line == f"the machine's clock was set {told}: times go by the old one until a restart"
