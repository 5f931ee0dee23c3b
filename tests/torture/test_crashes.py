"""Nothing that was acknowledged is lost when the service is killed, wherever that hits it."""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.receive.wire import Raw, raw
from tests.support import SUCCESS, files_in
from tests.torture import check
from tests.torture.adapter import Adapter, has_ended, started, struck, wait_until
from tests.torture.oracle import Oracle, Senders, Sent, associate, begin, store
from tests.torture.tally import Tally

pytestmark = [pytest.mark.strace, pytest.mark.timeout(3600)]

# The name of a folder of instances changes so often; a step is not to be counted across it.
_FOLDER_MILLISECONDS = 0x10000
_CLEAR_OF_THE_END = 5_000


class Step(NamedTuple):
    """A place between two steps of storing an instance, and what is on the disk there."""

    name: str
    what: str
    #: Killed when this is called for so many times, before it is done; "" to kill by hand.
    call: str
    when: int
    part: bool
    file: bool
    row: bool


STEPS = [
    Step("D1", "in the middle of a data set", "", 0, part=True, file=False, row=False),
    Step("D2", "after its last byte has come", "writev", 1, part=True, file=False, row=False),
    Step("D3", "before its bytes are flushed", "fdatasync", 1, part=True, file=False, row=False),
    Step("D4", "before it gets its name", "link", 1, part=True, file=False, row=False),
    Step("D5", "before its name is flushed", "fsync", 1, part=True, file=True, row=False),
    Step("D6", "before its commit is written", "pwrite64", 1, part=True, file=True, row=False),
    Step("D6", "before its commit is flushed", "fdatasync", 2, part=True, file=True, row=True),
    Step("D7", "before its sender is answered", "sendto", 1, part=True, file=True, row=True),
    Step("D8", "after its sender is answered", "", 0, part=False, file=True, row=True),
]


class Battered(NamedTuple):
    """A service that has been through the tests before, and what was sent to it."""

    adapter: Adapter
    oracle: Oracle


@pytest.fixture(scope="module")
def battered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battered]:
    """A service that one test after another kills and starts.

    No group is handed over by itself: what is written for it must not be taken for a step.
    """
    with started(Adapter(tmp_path_factory.mktemp("battered"), timeout=3600)) as adapter:
        yield Battered(adapter, Oracle())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name} {step.what}")
def test_a_crash_at_a_step(battered: Battered, tally: Tally, rounds: int, step: Step) -> None:
    """Killed between two given steps, the service has lost nothing that it had acknowledged.

    What was sent and not answered is whole or absent, and is stored once when it is sent again.
    """
    adapter, oracle = battered
    before = len(oracle.acknowledged)
    for _ in range(rounds):
        caught = _crash_at(adapter, oracle, step)
        _assert_was_at(adapter, caught, step)
        adapter.start()
        with raw(adapter.port) as peer:
            associate(peer)
            assert store(peer, oracle, caught) == SUCCESS
    check.settle(adapter)
    found = check.all_of(adapter, oracle)
    tally.add(found, kills=rounds, sent=3 * rounds, acknowledged=len(oracle.acknowledged) - before)
    assert found.wrong == []


def _crash_at(adapter: Adapter, oracle: Oracle, step: Step) -> Sent:
    """Store an instance, and die in the midst of the next one, which is returned."""
    wait_until(_is_clear_of_a_new_folder)
    with raw(adapter.port) as peer:
        associate(peer)
        assert store(peer, oracle, oracle.next()) == SUCCESS
        # Whatever its processor does must not be taken for a step of the next one.
        wait_until(lambda: check.is_handled(adapter.ledger))
        caught = oracle.next()
        if step.call:
            everything = adapter.all_of_it()
            with (
                struck(adapter, step.call, f"signal=KILL:when={step.when}"),
                pytest.raises((OSError, AssertionError)),
            ):
                store(peer, oracle, caught)
            adapter.gone(everything)
        else:
            _begin(peer, adapter, oracle, caught) if step.part else store(peer, oracle, caught)
            adapter.kill()
    return caught


def _is_clear_of_a_new_folder() -> bool:
    now = int(time.time() * 1000) % _FOLDER_MILLISECONDS
    return now < _FOLDER_MILLISECONDS - _CLEAR_OF_THE_END


def _begin(peer: Raw, adapter: Adapter, oracle: Oracle, instance: Sent) -> None:
    """Send the first half of an instance, and wait until it has reached the disk."""
    begin(peer, oracle, instance)
    wait_until(lambda: any(part.stat().st_size for part in _parts(adapter)))


def _parts(adapter: Adapter) -> list[Path]:
    return files_in(adapter.storage / "spool" / "incoming")


def _assert_was_at(adapter: Adapter, caught: Sent, step: Step) -> None:
    """Assert that the crash came where it should: from what it left on the disk."""
    with check.reading(adapter.ledger) as tx:
        query = "select id from instances where sop_instance_uid = ?"
        rows = tx.execute(query, [caught.uid]).fetchall()
        known = {instance for (instance,) in tx.execute("select id from instances")}
    parts = {part.stem for part in _parts(adapter)}
    files = {file.stem for file in files_in(adapter.storage / "spool" / "instances")}
    of_it = parts | (files - known) | {instance for (instance,) in rows}
    if step.name != "D8":
        assert len(of_it) == 1 or step.name == "D7", of_it
        assert bool(parts) == step.part
    assert bool(rows) == step.row
    assert bool(of_it & files) == step.file


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("durability", ["power-loss", "process-crash"])
def test_crashes_at_any_moment(
    tmp_path: Path, tally: Tally, rounds: int, durability: str, processes: int
) -> None:
    """Killed again and again under load, the service keeps and processes all that it acknowledged.

    What no sender was answered about is sent again, and is there once all the same.
    """
    oracle = Oracle()
    adapter = Adapter(tmp_path / "adapter", processes=processes, durability=durability)
    with started(adapter):
        with Senders(oracle, adapter.port):
            for number in range(rounds):
                oracle.wait_for(len(oracle.acknowledged) + 1 + secrets.randbelow(100))
                # By turns: at any instruction, or at any call that changes what is outside.
                _kill_at_some_call(adapter) if (number + processes) % 2 else adapter.kill()
                adapter.start()
            oracle.wait_for(len(oracle.acknowledged) + 10)
        check.settle(adapter, at_once=False)
        found = check.all_of(adapter, oracle)
    tally.add(found, oracle, kills=rounds)
    assert found.wrong == []


CALLS = (
    *("openat", "writev", "fdatasync", "link", "mkdir", "fsync"),
    *("pwrite64", "sendto", "recvfrom", "unlink", "write"),
)


def _kill_at_some_call(adapter: Adapter) -> None:
    everything = adapter.all_of_it()
    call, when = secrets.choice(CALLS), 1 + secrets.randbelow(30)
    with struck(adapter, call, f"signal=KILL:when={when}"):
        # Some are rare: then it is killed by hand, after a while of work.
        with suppress(AssertionError):
            wait_until(lambda: any(has_ended(process) for process in everything), 1)
        adapter.kill()
