"""D10: nothing that was acknowledged is lost when the power is cut, whatever is being written.

Spool and ledger lie on disks of their own, so that neither's flush writes what the other needs.
"""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.receive.wire import raw
from tests.support import SUCCESS
from tests.torture import check
from tests.torture.adapter import Adapter, started, struck, wait_until
from tests.torture.altered import WITHOUT_A_FLUSH
from tests.torture.check import Found
from tests.torture.disks import Disk, why_there_are_none
from tests.torture.oracle import Oracle, Senders, Sent, associate, store
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

# What a disk has room for.
CUTS_A_MACHINE = 20


@pytest.fixture(scope="module", autouse=True)
def can_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no disks can be made."""
    why = why_there_are_none(tmp_path_factory.mktemp("probe"))
    if why:
        pytest.skip(why)


class Machine:
    """A service with its two disks."""

    def __init__(self, folder: Path, *program: str, processes: int = 1) -> None:
        self._folder = folder
        self._disks = {name: Disk(folder / f"{name}.img").make() for name in ("spool", "ledger")}
        self._cuts = 0
        self.oracle = Oracle()
        self.adapter = Adapter(
            folder / "adapter",
            program=program or ("dicom_adapter",),
            processes=processes,
            storage=folder / "spool" / "data",
            ledger=folder / "ledger" / "ledger.db",
        )

    @contextmanager
    def running(self) -> Iterator["Machine"]:
        """Have the service run, its disks mounted, until the block ends."""
        with ExitStack() as stack:
            for name, disk in self._disks.items():
                stack.enter_context(disk.mounted(self._folder / name))
            stack.enter_context(started(self.adapter))
            yield self

    @contextmanager
    def cut(self) -> Iterator[tuple[Path, dict[str, Sent]]]:
        """Cut the power; mount what is left of the disks, until the block ends.

        The service, dead or frozen meanwhile, may go on on its own disks. Yields the folder of the
        disks, and what had been acknowledged before.
        """
        self._cuts += 1
        folder = self._folder / f"cut{self._cuts}"
        folder.mkdir()
        with ExitStack() as stack:
            with self.adapter.frozen():
                acknowledged = self.oracle.told()
                copies = {n: d.cut(folder / f"{n}.img") for n, d in self._disks.items()}
            for name, copy in copies.items():
                stack.callback(copy.image.unlink)
                stack.enter_context(copy.mounted(folder / name))
            yield folder, acknowledged

    def after_a_cut(self) -> Found:
        """Cut the power; return what is found on the disks, before any service sees them."""
        with self.cut() as (folder, acknowledged):
            return check.kept(
                folder / "spool" / "data",
                folder / "ledger" / "ledger.db",
                acknowledged,
                dict(self.oracle.made),
            )

    def after_a_cut_and_a_start(self) -> Found:
        """Cut the power; return what is found when a service has started on the disks."""
        with self.cut() as (folder, acknowledged):
            adapter = Adapter(
                folder / "adapter",
                storage=folder / "spool" / "data",
                ledger=folder / "ledger" / "ledger.db",
            )
            with started(adapter):
                check.settle(adapter)
                return check.all_of(adapter, self.oracle, acknowledged)


@pytest.mark.parametrize("processes", [1, 2])
def test_power_cuts_at_any_moment(
    tmp_path: Path, tally: Tally, rounds: int, processes: int
) -> None:
    """Whenever the power is cut under load, the disks hold all that was acknowledged before.

    A service that starts on them makes its jobs of it.
    """
    cuts = 3 * rounds
    for first in range(0, cuts, CUTS_A_MACHINE):
        folder = tmp_path / str(first)
        folder.mkdir()
        with Machine(folder, processes=processes).running() as machine:
            oracle = machine.oracle
            with Senders(oracle, machine.adapter.port):
                for _ in range(min(CUTS_A_MACHINE, cuts - first)):
                    oracle.wait_for(len(oracle.acknowledged) + 1 + secrets.randbelow(30))
                    found = machine.after_a_cut()
                    tally.add(found, cuts=1)
                    assert found.wrong == []
            found = machine.after_a_cut_and_a_start()
        tally.add(found, oracle, cuts=1)
        assert found.wrong == []


# The power is cut when the call has been made for so many times: what it did is done, and nothing
# of what follows.
CALLS = [
    pytest.param("writev", 1, id="D3 when its bytes are written"),
    pytest.param("fdatasync", 1, id="D4 when its bytes are flushed"),
    pytest.param("link", 1, id="D5 when it has got its name"),
    pytest.param("fsync", 1, id="D6 when its name is flushed"),
    pytest.param("pwrite64", 1, id="D6 when its commit has begun to be written"),
    pytest.param("pwrite64", 14, id="D6 when its commit is written"),
    pytest.param("fdatasync", 2, id="D7 when its commit is flushed"),
    # By then the thread that answers may have been quicker than the one that stops it.
    pytest.param("sendto", 1, id="D8 when it is answered"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine of which one test after another keeps a copy of the disks."""
    with Machine(tmp_path_factory.mktemp("machine")).running() as made:
        yield made


@pytest.mark.strace
@pytest.mark.parametrize(("call", "when"), CALLS)
def test_a_power_cut_at_a_step(
    machine: Machine, tally: Tally, rounds: int, call: str, when: int
) -> None:
    """Between two given steps of storing an instance, the disks hold all that was acknowledged."""
    adapter, oracle = machine.adapter, machine.oracle
    for _ in range(rounds):
        with raw(adapter.port) as peer:
            associate(peer)
            assert store(peer, oracle, oracle.next()) == SUCCESS
            wait_until(lambda: check.is_handled(adapter.ledger))
            with (
                ThreadPoolExecutor(1) as sender,
                struck(adapter, call, f"signal=STOP:when={when}"),
            ):
                status = sender.submit(store, peer, oracle, oracle.next())
                wait_until(adapter.is_frozen)
                assert call == "sendto" or not status.done()
                found = machine.after_a_cut()
            assert status.result() == SUCCESS
        tally.add(found, cuts=1, sent=2, acknowledged=2)
        assert found.wrong == []


@pytest.mark.parametrize("mutant", WITHOUT_A_FLUSH)
def test_a_flush_that_is_left_out_is_noticed(tmp_path: Path, mutant: str) -> None:
    """Without any one of its flushes the service does lose what it has acknowledged."""
    with Machine(tmp_path, "tests.torture.altered", mutant).running() as machine:
        with raw(machine.adapter.port) as peer:
            associate(peer)
            assert store(peer, machine.oracle, machine.oracle.next()) == SUCCESS
        assert machine.after_a_cut().lost
