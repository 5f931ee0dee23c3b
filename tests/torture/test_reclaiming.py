"""Whatever befalls it while it removes, the reclaimer removes what was delivered, and no more."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.receive.wire import raw
from tests.support import SUCCESS, files_in
from tests.torture import check
from tests.torture.adapter import Adapter, has_ended, started, struck, wait_until
from tests.torture.oracle import Oracle, associate, store
from tests.torture.tally import Tally

pytestmark = [pytest.mark.strace, pytest.mark.timeout(3600)]

INSTANCES = 6
# Where it is killed: at the N-th of these calls of one of its threads, once there is work to do.
KILLS = [("unlink", 4), ("fsync", 2), ("pwrite64", 9)]
# What is in one of these states needs no file any more.
_GONE = ("reclaiming", "reclaimed")


class Standing(NamedTuple):
    """A service that keeps nothing that was delivered, and what was sent to it."""

    adapter: Adapter
    oracle: Oracle


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A service for one test after another."""
    with started(Adapter(tmp_path_factory.mktemp("standing"), retain="0")) as adapter:
        yield Standing(adapter, Oracle())


@pytest.mark.parametrize(("call", "when"), KILLS)
def test_a_crash_while_it_removes(
    standing: Standing, tally: Tally, rounds: int, call: str, when: int
) -> None:
    """D22: what is not delivered is still there; the next start removes all that is."""
    adapter, oracle = standing
    for number in range(rounds):
        _send(standing)
        with struck(adapter, call, f"signal=KILL:when={when + number}"):
            check.hand_over(adapter)
            # Where there are no more calls, it is killed after a while of work.
            with suppress(AssertionError):
                wait_until(partial(_has_ended, adapter), 1)
            adapter.kill()
        _assert_nothing_went_early(adapter)
        adapter.start()
        _assert_all_goes(adapter, oracle)
        tally.count(kills=1, sent=INSTANCES, acknowledged=INSTANCES)


def test_a_file_cannot_be_removed(standing: Standing, tally: Tally, rounds: int) -> None:
    """D22: that is told, and it is tried again; it stops nothing else."""
    adapter, oracle = standing
    for _ in range(rounds):
        _send(standing)
        with struck(adapter, "unlink", "error=EIO", _files(adapter)):
            check.hand_over(adapter)
            wait_until(partial(_are_told, adapter))
        _assert_nothing_went_early(adapter)
        # It is woken by what is delivered next.
        _send(standing)
        _assert_all_goes(adapter, oracle)
        tally.count(faults=1, sent=2 * INSTANCES, acknowledged=2 * INSTANCES)


def _has_ended(adapter: Adapter) -> bool:
    return any(map(has_ended, adapter.all_of_it()))


def _are_told(adapter: Adapter) -> bool:
    """Tell whether the log names every file that is there."""
    log = adapter.log
    return all(f'"reclaim.failed", "instance": "{path.stem}"' in log for path in _files(adapter))


def _files(adapter: Adapter) -> list[Path]:
    return files_in(adapter.storage / "spool" / "instances")


def _send(standing: Standing) -> None:
    """Store instances, and wait until each is in a group, which waits for more."""
    adapter, oracle = standing
    with raw(adapter.port) as peer:
        associate(peer)
        for _ in range(INSTANCES):
            assert store(peer, oracle, oracle.next()) == SUCCESS
    wait_until(lambda: check.is_handled(adapter.ledger))


def _assert_nothing_went_early(adapter: Adapter) -> None:
    """Assert that everything is there that the ledger does not say is gone."""
    files = {path.stem: path for path in _files(adapter)}
    with check.reading(adapter.ledger) as tx:
        rows = tx.execute("select id, state, sha256 from instances").fetchall()
        not_done = tx.execute(_NOT_DELIVERED).fetchall()
    for instance, state, digest in rows:
        if state not in _GONE:
            assert sha256(files[instance].read_bytes()).hexdigest() == digest
    assert not_done == []


# What must not go yet.
_NOT_DELIVERED = """
select i.id from instances i
left join submission_instances si on si.instance_id = i.id
left join submissions s on s.id = si.submission_id
where i.state in ('reclaiming', 'reclaimed') and (s.id is null or s.state != 'accepted')
"""


def _assert_all_goes(adapter: Adapter, oracle: Oracle) -> None:
    """Assert that each instance comes to a job that ends well, and then its file goes."""
    check.settle(adapter)
    wait_until(lambda: _states(adapter) == {"reclaimed"})
    assert _files(adapter) == []
    with check.reading(adapter.ledger) as tx:
        times = dict(tx.execute(check.WORKED_ON))
    assert len(times) == len(oracle.acknowledged)
    assert set(times.values()) == {1}


def _states(adapter: Adapter) -> set[str]:
    with check.reading(adapter.ledger) as tx:
        return {state for (state,) in tx.execute("select distinct state from instances")}
