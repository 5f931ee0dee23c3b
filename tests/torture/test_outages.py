"""Whatever happens to the platform, or between it and the adapter: one job of each submission.

That refusals for good are parked, and go on when a person says so, tests/submit has.
"""

import secrets
from collections.abc import Iterator

import pytest

from tests.torture.check import Found
from tests.torture.outage import FAULTS, KILLS, Pair
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

FAULTS_AT_RANDOM = 5


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
