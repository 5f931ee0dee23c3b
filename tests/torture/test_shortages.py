"""What the service needs is held by others for a while: it says so, piles nothing up, goes on."""

import select
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.receive.wire import ASSOCIATE_AC, Raw, associate_rq, raw
from tests.support import SUCCESS, association, files_in
from tests.torture import check
from tests.torture.adapter import Adapter, started, wait_until
from tests.torture.oracle import Oracle, associate, store
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

OUT_OF_RESOURCES = 0xA700
VERIFICATION = "1.2.840.10008.1.1"
SENDERS = 12
FILES = 64
CONNECTIONS = 2 * FILES
#: Threads that a service may have more of than at rest: of libraries, which make them as needed.
A_FEW = 8


@pytest.mark.parametrize(
    ("durability", "long"),
    [("power-loss", True), ("power-loss", False), ("process-crash", True)],
    ids=lambda value: {True: "for longer than it waits", False: "for a moment"}.get(value, value),
)
def test_a_locked_ledger(
    tmp_path: Path, tally: Tally, rounds: int, durability: str, *, long: bool
) -> None:
    """D15: each sender is answered in time, refused or when the ledger is free again."""
    program = ("tests.torture.altered", "impatient") if long else ("dicom_adapter",)
    adapter = Adapter(tmp_path / "adapter", durability=durability, program=program)
    oracle = Oracle()
    with started(adapter):
        for _ in range(rounds):
            _assert_stores(adapter, oracle)
            threads, files = _threads(adapter), len(_files(adapter))
            with ThreadPoolExecutor(SENDERS) as pool, locked(adapter.ledger) as lock:
                answers = [pool.submit(_try_one, adapter, oracle) for _ in range(SENDERS)]
                if long:
                    told = {answer.result() for answer in answers}
                    assert told == {OUT_OF_RESOURCES}
                else:
                    # Durable, and not in the ledger yet.
                    wait_until(partial(_has_more_than, adapter, files))
                if durability == "power-loss":
                    # Nobody has to wait who does not need the ledger.
                    _assert_echoes(adapter)
                assert _threads(adapter) <= threads + A_FEW
                lock.rollback()
                assert long or {answer.result() for answer in answers} == {SUCCESS}
            _assert_stores(adapter, oracle)
            assert _threads(adapter) <= threads + A_FEW
            tally.count(faults=1)
        _assert_all_is_well(adapter, oracle, tally)


@contextmanager
def locked(ledger: Path) -> Iterator[sqlite3.Connection]:
    """Hold a ledger as another program may, until the block ends or rolls back."""
    with closing(sqlite3.connect(ledger, timeout=30, isolation_level=None)) as connection:
        connection.execute("begin exclusive")
        yield connection


def _try_one(adapter: Adapter, oracle: Oracle) -> int:
    with raw(adapter.port) as peer:
        associate(peer)
        return store(peer, oracle, oracle.next())


def _files(adapter: Adapter) -> list[Path]:
    return files_in(adapter.storage / "spool" / "instances")


def _has_more_than(adapter: Adapter, files: int) -> bool:
    return len(_files(adapter)) > files


def _threads(adapter: Adapter) -> int:
    return sum(process.num_threads() for process in adapter.all_of_it())


def _assert_stores(adapter: Adapter, oracle: Oracle) -> None:
    """Assert that the service answers an echo, and takes an instance."""
    _assert_echoes(adapter)
    assert _try_one(adapter, oracle) == SUCCESS


def _assert_echoes(adapter: Adapter) -> None:
    with association(adapter.port, contexts=[(VERIFICATION, "1.2.840.10008.1.2.1")]) as opened:
        assert opened.send_c_echo().Status == SUCCESS


def test_few_open_files(tmp_path: Path, tally: Tally, rounds: int) -> None:
    """D27: with no descriptor left, who comes has to wait, and who is there is refused."""
    limits = ("prlimit", f"--nofile={FILES}:{FILES}")
    adapter, oracle = Adapter(tmp_path / "adapter", limits=limits), Oracle()
    with started(adapter):
        for _ in range(rounds):
            _assert_stores(adapter, oracle)
            with ExitStack() as stack:
                peers = [stack.enter_context(raw(adapter.port)) for _ in range(CONNECTIONS)]
                for peer in peers:
                    peer.send(associate_rq())
                wait_until(lambda: "listener.full" in adapter.log)
                inside = wait_until(partial(_answered, peers))
                assert len(inside) < CONNECTIONS
                for peer in inside:
                    assert peer.read()[0] == ASSOCIATE_AC
                    assert store(peer, oracle, oracle.next()) in {SUCCESS, OUT_OF_RESOURCES}
            # Those that have waited are let in, and are gone.
            wait_until(lambda: _try_one(adapter, oracle) == SUCCESS)
            tally.count(faults=1)
            _assert_stores(adapter, oracle)
        _assert_all_is_well(adapter, oracle, tally)


def _answered(peers: list[Raw]) -> list[Raw]:
    """Return those of the peers that have been sent something."""
    readable, _, _ = select.select([peer.connection for peer in peers], [], [], 0)
    return [peer for peer in peers if peer.connection in readable]


def _assert_all_is_well(adapter: Adapter, oracle: Oracle, tally: Tally) -> None:
    """Assert that the service lives, and has done all that it was asked for, once."""
    assert adapter.process is not None
    assert adapter.process.poll() is None
    check.settle(adapter)
    found = check.all_of(adapter, oracle)
    tally.add(found, oracle)
    assert found.wrong == []
    assert found.orphans == 0
