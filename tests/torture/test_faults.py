"""A system call that fails costs at most the instance that it was made for.

The service stays, says to the sender that the instance was not stored, and goes on by itself.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.receive.wire import Raw, raw
from tests.support import SUCCESS, files_in
from tests.torture import check
from tests.torture.adapter import Adapter, started, struck, wait_until
from tests.torture.oracle import Oracle, Senders, Sent, associate, store
from tests.torture.tally import Tally

pytestmark = [pytest.mark.strace, pytest.mark.timeout(3600)]

OUT_OF_RESOURCES = 0xA700
# What one instance needs: how often a thread of the service makes each call for it, at most.
CALLS = {"openat": 1, "writev": 1, "fdatasync": 2, "link": 1, "fsync": 1, "pwrite64": 18}
ERRORS = ("EIO", "ENOSPC")
PROCESSES = {"power-loss": 1, "process-crash": 2}
CASES = [
    (durability, call)
    for durability in PROCESSES
    for call in CALLS
    if durability == "power-loss" or "sync" not in call
]
# So often each service of many senders is struck.
AT_ANY_MOMENT = 3
# Of many calls so few are tried, unless it is done more than once.
_FEW = 3
_FLUSHED = re.compile(r"fdatasync\(\d+<(?P<path>[^>]*\.part)>\) += (?P<result>.*)")


class Standing(NamedTuple):
    """A service that no fault may end, and what was sent to it."""

    adapter: Adapter
    oracle: Oracle


@pytest.fixture(scope="module")
def make_standing(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Standing]]:
    """Services, each of another durability, for one test after another."""
    with ExitStack() as stack:

        @cache
        def make(durability: str) -> Standing:
            folder, processes = tmp_path_factory.mktemp("standing"), PROCESSES[durability]
            adapter = Adapter(folder, durability=durability, processes=processes)
            return Standing(stack.enter_context(started(adapter)), Oracle())

        yield make


@pytest.fixture
def standing(request: pytest.FixtureRequest, make_standing: Callable[[str], Standing]) -> Standing:
    """The service of the durability that is asked for."""
    return make_standing(request.param)


@pytest.mark.parametrize(("standing", "call"), CASES, indirect=["standing"])
def test_a_call_fails(standing: Standing, tally: Tally, rounds: int, call: str) -> None:
    """D11: whichever call fails, the instance is refused and leaves nothing, or it is stored.

    What was refused is stored when it is sent again over the same association.
    """
    adapter, oracle = standing
    for error, when in list(product(ERRORS, _some(CALLS[call], rounds))) * rounds:
        with raw(adapter.port) as peer:
            associate(peer)
            status = _store_through(standing, peer, call, f"error={error}:when={when}")
            # Each thread counts for itself, so the first one fails for the instance.
            assert when > 1 or status == OUT_OF_RESOURCES
            assert store(peer, oracle, oracle.next()) == SUCCESS
        tally.count(faults=1)
    _assert_all_is_well(standing, tally)


def _some(calls: int, rounds: int) -> Sequence[int]:
    return range(1, calls + 1, max(1, calls // _FEW) if rounds == 1 else 1)


def _store_through(standing: Standing, peer: Raw, call: str, fault: str) -> int:
    """Store an instance while a call fails in the service, and again if it was refused."""
    adapter, oracle = standing
    instance = oracle.next()
    with struck(adapter, call, fault) as log:
        status = store(peer, oracle, instance)
        _wait_for_the_rest(adapter)
    _assert_no_flush_is_retried(log)
    if status != SUCCESS:
        assert status == OUT_OF_RESOURCES
        assert not _rows(adapter, instance)
        assert not _files_without_a_row(adapter)
        assert store(peer, oracle, instance) == SUCCESS
    return status


def test_a_call_fails_for_a_new_folder(tmp_path: Path, tally: Tally) -> None:
    """D11: the folder of what is stored next is made and flushed again, when that has failed."""
    oracle, folders = Oracle(), Path("spool", "instances")
    with started(Adapter(tmp_path / "adapter")) as adapter:
        with raw(adapter.port) as peer:
            associate(peer)
            for call in ("mkdir", "fsync"):
                with struck(adapter, call, "error=EIO:when=1"):
                    assert store(peer, oracle, oracle.next()) == OUT_OF_RESOURCES
                # Whoever finds it there would take it for durable.
                assert not list((adapter.storage / folders).iterdir())
                tally.count(faults=1)
            assert store(peer, oracle, oracle.next()) == SUCCESS
        _assert_all_is_well(Standing(adapter, oracle), tally)


@pytest.mark.parametrize("standing", ["power-loss"], indirect=True)
@pytest.mark.parametrize("when", ["2", "2+"])
def test_a_crash_after_a_call_has_failed(standing: Standing, tally: Tally, when: str) -> None:
    """D11: a commit whose flush failed, once or from then on, is none after a crash either.

    It lies in the log that SQLite writes ahead, which is read anew at the start.
    """
    adapter, oracle = standing
    with raw(adapter.port) as peer:
        associate(peer)
        with struck(adapter, "fdatasync", f"error=EIO:when={when}"):
            assert store(peer, oracle, oracle.next()) == OUT_OF_RESOURCES
            adapter.kill()
    adapter.start()
    tally.count(faults=1, kills=1)
    _assert_all_is_well(standing, tally)


@pytest.mark.parametrize("standing", ["power-loss"], indirect=True)
def test_what_was_half_received_cannot_be_removed(standing: Standing, tally: Tally) -> None:
    """D11: it stays until the next start sweeps it, and is in nobody's way."""
    adapter, oracle = standing
    with raw(adapter.port) as peer:
        associate(peer)
        with struck(adapter, "unlink", "error=EIO"):
            for _ in range(2):
                assert store(peer, oracle, oracle.next()) == SUCCESS
        assert store(peer, oracle, oracle.next()) == SUCCESS
    assert _parts(adapter)
    adapter.kill()
    adapter.start()
    tally.count(faults=1, kills=1)
    _assert_all_is_well(standing, tally)


@pytest.mark.parametrize("durability", PROCESSES)
def test_calls_fail_at_any_moment(
    tmp_path: Path, tally: Tally, rounds: int, durability: str
) -> None:
    """D11: whichever thread a fault hits under load, nothing is lost and nothing stands still."""
    oracle = Oracle()
    processes = PROCESSES[durability]
    with started(Adapter(tmp_path / "a", durability=durability, processes=processes)) as adapter:
        with Senders(oracle, adapter.port):
            for _ in range(AT_ANY_MOMENT * rounds):
                call, when = secrets.choice(list(CALLS)), 1 + secrets.randbelow(30)
                with struck(adapter, call, f"error={secrets.choice(ERRORS)}:when={when}"):
                    oracle.wait_for(len(oracle.acknowledged) + 30)
                tally.count(faults=1)
        _assert_all_is_well(Standing(adapter, oracle), tally)


def _wait_for_the_rest(adapter: Adapter) -> None:
    """Wait until nothing of what was being received is left, and every instance is in its group."""
    wait_until(lambda: not _parts(adapter))
    wait_until(lambda: check.is_handled(adapter.ledger))


def _assert_no_flush_is_retried(log: Path) -> None:
    """What could not be flushed may be lost from memory too: a second flush of it proves nothing.

    Those of the ledger are of one file, and of what was written to it again.
    """
    flushed = [match.groups() for match in _FLUSHED.finditer(log.read_text("utf-8"))]
    for path, result in flushed:
        if "INJECTED" in result:
            assert [again for again, _ in flushed].count(path) == 1


def _parts(adapter: Adapter) -> list[Path]:
    return files_in(adapter.storage / "spool" / "incoming")


def _rows(adapter: Adapter, instance: Sent) -> list[str]:
    query = "select id from instances where sop_instance_uid = ?"
    with check.reading(adapter.ledger) as tx:
        return [found for (found,) in tx.execute(query, [instance.uid])]


def _files_without_a_row(adapter: Adapter) -> set[str]:
    with check.reading(adapter.ledger) as tx:
        known = {instance for (instance,) in tx.execute("select id from instances")}
    return {path.stem for path in files_in(adapter.storage / "spool" / "instances")} - known


def _assert_all_is_well(standing: Standing, tally: Tally) -> None:
    """Assert that the service lives, and has done all that it was asked for, once."""
    adapter, oracle = standing
    assert adapter.process is not None
    assert adapter.process.poll() is None
    check.settle(adapter)
    found = check.all_of(adapter, oracle)
    tally.add(found)
    assert found.wrong == []
    assert found.orphans == 0
