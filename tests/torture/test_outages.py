"""Whatever happens to the platform, or between it and the adapter: one job of each submission.

That refusals for good are parked, and go on when a person says so, tests/submit has.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal

import pytest

from tests.receive.wire import raw
from tests.support import SUCCESS, files_in
from tests.torture.adapter import struck, wait_until
from tests.torture.check import Found
from tests.torture.oracle import associate, store
from tests.torture.outage import FAULTS, KILLS, Pair
from tests.torture.proxy import Trap, Way
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

FAULTS_AT_RANDOM = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that one test after another does harm to."""
    with Pair(tmp_path_factory.mktemp("pair")) as made:
        yield made


def survived(pair: Pair, tally: Tally, faults: list[str]) -> Found:
    """Do this to a pair under load; return what is wrong when it has settled."""
    sent, acknowledged = pair.oracle.times_sent.total(), len(pair.oracle.acknowledged)
    with pair.load():
        for fault in faults:
            FAULTS[fault](pair)
    found = pair.settled()
    kills = sum(fault in KILLS for fault in faults)
    tally.add(
        found,
        kills=kills,
        faults=len(faults) - kills,
        sent=pair.oracle.times_sent.total() - sent,
        acknowledged=len(pair.oracle.acknowledged) - acknowledged,
    )
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage(pair: Pair, tally: Tally, rounds: int, fault: str) -> None:
    """Senders are answered meanwhile; afterwards every instance is in one job of each pipeline."""
    found = survived(pair, tally, [fault] * rounds)
    assert found.wrong == []


def test_outages_at_random(pair: Pair, tally: Tally, rounds: int) -> None:
    """So it is after one outage upon the other, of any kind."""
    faults = [secrets.choice(list(FAULTS)) for _ in range(FAULTS_AT_RANDOM * rounds)]
    found = survived(pair, tally, faults)
    assert found.wrong == [], faults


# Pixels that come in more than one piece, within what a PDU may hold.
_PIXELS = 100_000
_IN_THE_MIDST = 50_000
# What is held is not to be given up meanwhile.
_DEADLINE = 15.0


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that one test after another kills a half of."""
    with Pair(tmp_path_factory.mktemp("patient"), _PIXELS, _DEADLINE) as made:
        yield made


PLACES: dict[str, Callable[[Pair], AbstractContextManager[Trap]]] = {
    "D18 before the platform is asked": lambda pair: pair.proxy.trap(Way.UP, lambda _: True),
    "D19 in the middle of an upload": lambda pair: pair.proxy.trap(
        Way.UP, lambda come: come > _IN_THE_MIDST
    ),
    "D20 before the platform's answer is there": Pair.committed,
    "D21 after the answer": Pair.committed,
}


@pytest.mark.strace
@pytest.mark.parametrize("victim", ["adapter", "platform"])
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_a_step(
    patient: Pair, tally: Tally, rounds: int, place: str, victim: Literal["adapter", "platform"]
) -> None:
    """Either of the two killed between two given steps of a submission, it makes one job."""
    for _ in range(rounds):
        _store(patient)
        _kill_at(patient, place, victim)
        if victim == "platform":
            _store(patient)
        getattr(patient, victim).start()
        found = patient.settled()
        stored = 1 + (victim == "platform")
        tally.add(found, kills=1, sent=stored, acknowledged=stored)
        assert found.wrong == []


def _kill_at(pair: Pair, place: str, victim: str) -> None:
    """Kill one of the two at a place; what they have of the submission shows that it was there."""
    jobs, accepted = pair.jobs(), pair.accepted()
    is_answered = place.startswith("D21")
    with PLACES[place](pair) as trap:
        wait_until(pair.hand_over)
        trap.wait()
        _assert_is_at(place, pair, jobs)
        if is_answered and victim == "adapter":
            _kill_before_it_notes(pair, trap)
        else:
            getattr(pair, victim).kill()
        if is_answered and victim == "platform":
            trap.leave(goes_on=True)
            wait_until(lambda: pair.accepted() > accepted)
            return
    assert pair.accepted() == accepted


def _store(pair: Pair) -> None:
    with raw(pair.adapter.port) as peer:
        associate(peer)
        assert store(peer, pair.oracle, pair.oracle.next()) == SUCCESS


def _assert_is_at(place: str, pair: Pair, jobs: int) -> None:
    """Assert that what is held is where it should be: from what the platform has of it."""
    is_committed = place.startswith(("D20", "D21"))
    assert pair.jobs() == jobs + is_committed
    if place.startswith("D19"):
        wait_until(lambda: _parts(pair) == 1)
    else:
        # What an upload that was broken off before has left may be on its way out still.
        wait_until(lambda: not _parts(pair))


def _parts(pair: Pair) -> int:
    return sum(path.suffix == ".part" for path in files_in(pair.platform.storage / "platform"))


def _kill_before_it_notes(pair: Pair, trap: Trap) -> None:
    """Let the answer through, and kill the adapter when it is about to write that down."""
    everything = pair.adapter.all_of_it()
    with struck(pair.adapter, "pwrite64", "signal=KILL:when=1"):
        trap.leave(goes_on=True)
        pair.adapter.gone(everything)
