"""A disk that is full, or read-only, costs no instance but those that are refused then.

When there is room again the service goes on by itself.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from shutil import disk_usage

import pytest

from tests.receive.wire import raw
from tests.support import SUCCESS, command, files_in
from tests.torture import check
from tests.torture.adapter import Adapter, started, struck, wait_until
from tests.torture.disks import Disk, read_only, room, why_there_are_none
from tests.torture.oracle import Oracle, associate, begin, store
from tests.torture.tally import Tally

pytestmark = pytest.mark.timeout(3600)

OUT_OF_RESOURCES = 0xA700
SIZE = "16M"
BLOCK = 64 * 1024


@pytest.fixture(scope="module", autouse=True)
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no disks can be made."""
    why = why_there_are_none(tmp_path_factory.mktemp("probe"))
    if why:
        pytest.skip(why)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    place = tmp_path / "disk"
    with ExitStack() as stack:
        if request.param == "ext4":
            stack.enter_context(Disk(tmp_path / "disk.img").make(SIZE).mounted(place))
        else:
            stack.enter_context(room(place, f"size={SIZE},nr_inodes=2000"))
        yield place


@pytest.mark.parametrize(
    ("disk", "ledger"), [("ext4", "beside"), ("tmpfs", "elsewhere")], indirect=["disk"]
)
def test_a_full_disk(tmp_path: Path, disk: Path, tally: Tally, rounds: int, ledger: str) -> None:
    """D12: nothing of what comes is kept, not even in part, until there is room again.

    The same where there are bytes, but no file can be made.
    """
    elsewhere = tmp_path / "ledger.db" if ledger == "elsewhere" else None
    adapter = Adapter(tmp_path / "adapter", storage=disk / "data", ledger=elsewhere)
    oracle = Oracle()
    with started(adapter):
        for _ in range(rounds):
            for use_up in (_bytes, _inodes):
                _store(adapter, oracle)
                fillers = use_up(disk)
                _assert_refused(adapter, oracle)
                for filler in fillers:
                    filler.unlink()
                _store(adapter, oracle)
                tally.count(faults=1)
        _assert_all_is_well(adapter, oracle, tally)


def _bytes(disk: Path) -> list[Path]:
    """Fill a disk to its last byte; return what it is filled with."""
    filler = disk / "filler"
    for size in (BLOCK, 512):
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))
    return [filler]


def _inodes(disk: Path) -> list[Path]:
    """Make files until there can be no more; return them."""
    made: list[Path] = []
    with suppress(OSError):
        for number in count():
            filler = disk / f"filler{number}"
            filler.touch()
            made.append(filler)
    return made


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_disk_full_to_the_reserve(tmp_path: Path, disk: Path, tally: Tally) -> None:
    """D12: what is kept free is the ledger's and the jobs': they go on while nothing is taken."""
    adapter, oracle = Adapter(tmp_path / "adapter", storage=disk / "data", reserve="6MiB"), Oracle()
    with started(adapter):
        _store(adapter, oracle)
        (disk / "filler").write_bytes(bytes(disk_usage(disk).free - 4 * 1024 * 1024))
        _assert_refused(adapter, oracle)
        _assert_all_is_well(adapter, oracle)
        (disk / "filler").unlink()
        _store(adapter, oracle)
        tally.count(faults=1)
        _assert_all_is_well(adapter, oracle, tally)


@pytest.mark.strace
def test_a_disk_that_becomes_read_only(tmp_path: Path, tally: Tally, rounds: int) -> None:
    """D13: also what is half received then is refused; when it can be written, all goes on.

    A start on it is refused.
    """
    adapter, oracle = Adapter(tmp_path / "adapter"), Oracle()
    with started(adapter):
        for _ in range(rounds):
            with raw(adapter.port) as peer, raw(adapter.port) as other:
                associate(peer)
                associate(other)
                # What could not be removed the last time is there still.
                half, left = oracle.next(), {*_parts(adapter)}
                rest = begin(peer, oracle, half)
                wait_until(partial(_come, adapter, left))
                # The ledger's file is open, and stays so; its volume refuses what is written.
                with (
                    read_only(adapter.storage / "spool"),
                    struck(adapter, "pwrite64,fdatasync,ftruncate", "error=EROFS"),
                ):
                    peer.send(rest)
                    assert peer.status() == OUT_OF_RESOURCES
                    assert store(other, oracle, oracle.next()) == OUT_OF_RESOURCES
                for each in (peer, other):
                    assert store(each, oracle, half) == SUCCESS
            tally.count(faults=1)
        adapter.kill()
        _assert_does_not_start(adapter)
        # What could not be removed is swept at the start.
        adapter.start()
        _assert_all_is_well(adapter, oracle, tally)


def test_a_start_on_an_empty_read_only_disk(tmp_path: Path) -> None:
    """D13: it is refused in one line that says why."""
    adapter = Adapter(tmp_path / "adapter", storage=tmp_path / "disk" / "data")
    adapter.storage.parent.mkdir()
    _assert_does_not_start(adapter)


def _assert_does_not_start(adapter: Adapter) -> None:
    with read_only(adapter.storage.parent):
        ended = command("serve", folder=adapter.folder)
    assert ended.returncode not in {0, -6, -11}
    assert "Read-only file system" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def _store(adapter: Adapter, oracle: Oracle) -> None:
    """Store an instance, and wait until it is in its group."""
    with raw(adapter.port) as peer:
        associate(peer)
        assert store(peer, oracle, oracle.next()) == SUCCESS
    wait_until(lambda: check.is_handled(adapter.ledger))


def _assert_refused(adapter: Adapter, oracle: Oracle) -> None:
    """Assert that an association is told each time that there is no room, and nothing stays."""
    with raw(adapter.port) as peer:
        associate(peer)
        for _ in range(3):
            assert store(peer, oracle, oracle.next()) == OUT_OF_RESOURCES
    wait_until(lambda: not _parts(adapter))
    # The groups that are there are handed over meanwhile, to jobs for which there is no room.
    check.hand_over(adapter)


def _parts(adapter: Adapter) -> list[Path]:
    return files_in(adapter.storage / "spool" / "incoming")


def _come(adapter: Adapter, before: set[Path]) -> set[Path]:
    return {*_parts(adapter)} - before


def _assert_all_is_well(adapter: Adapter, oracle: Oracle, tally: Tally | None = None) -> None:
    """Assert that what was refused is nowhere, and the rest has been worked on once."""
    check.settle(adapter)
    found = check.all_of(adapter, oracle)
    if tally is not None:
        tally.add(found, oracle)
    assert found.wrong == []
    assert found.orphans == 0
