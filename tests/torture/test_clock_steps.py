"""The machine's clock is set while the service runs: nothing is lost, and nothing waits for it."""

import secrets
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.receive.wire import raw
from tests.support import SUCCESS
from tests.torture import check
from tests.torture.adapter import GROUP_SECONDS, Adapter, started
from tests.torture.altered import AHEAD
from tests.torture.oracle import Oracle, Senders, associate, store
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

HOUR = 3600
STEPS = 3


class Standing(NamedTuple):
    """A service with a wall clock that can be set, and what was sent to it."""

    adapter: Adapter
    oracle: Oracle


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A service for one test after another."""
    folder = tmp_path_factory.mktemp("standing")
    with started(Adapter(folder, program=("tests.torture.altered", "stepped"))) as adapter:
        yield Standing(adapter, Oracle())


def set_clock(adapter: Adapter, hours: float) -> None:
    """Have the wall clock of a service be so far ahead."""
    (adapter.folder / AHEAD).write_text(str(hours * HOUR), "utf-8")


def test_the_clock_is_set(standing: Standing, tally: Tally) -> None:
    """D25: no group waits for the clock to come back, and none is handed over before its time."""
    adapter, oracle = standing
    with raw(adapter.port) as peer:
        associate(peer)
        for hours in (3, -3):
            assert store(peer, oracle, oracle.next()) == SUCCESS
            stored = time.monotonic()
            set_clock(adapter, hours)
            check.settle(adapter, at_once=False)
            assert time.monotonic() > stored + GROUP_SECONDS
            assert store(peer, oracle, oracle.next()) == SUCCESS
            assert abs(_newest(adapter) - time.time()) < HOUR
            check.settle(adapter)
            tally.count(faults=1)
    found = check.all_of(adapter, oracle)
    tally.add(found)
    assert found.wrong == []


def _newest(adapter: Adapter) -> float:
    """Return when the newest instance came, by the service's clock, in seconds since 1970."""
    with check.reading(adapter.ledger) as tx:
        (newest,) = tx.execute("select max(received_at) from instances").fetchone()
    return float(newest) / 1_000_000


def test_the_clock_is_set_at_any_moment(standing: Standing, tally: Tally, rounds: int) -> None:
    """D25: set again and again under load, to and fro, it costs nothing."""
    adapter, oracle = standing
    with Senders(oracle, adapter.port):
        for _ in range(STEPS * rounds):
            oracle.wait_for(len(oracle.acknowledged) + 1 + secrets.randbelow(100))
            set_clock(adapter, secrets.randbelow(12) - 6)
        oracle.wait_for(len(oracle.acknowledged) + 10)
    check.settle(adapter, at_once=False)
    found = check.all_of(adapter, oracle)
    tally.add(found, faults=STEPS * rounds)
    assert found.wrong == []
    assert found.orphans == 0
