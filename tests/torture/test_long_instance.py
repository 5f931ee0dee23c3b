"""An instance of 5 GiB, one of whose elements is as long as an element can be."""

from collections.abc import Iterator
from pathlib import Path
from struct import pack

import psutil
import pytest
from pydicom.uid import generate_uid

from benchmarks.receivers import AE_TITLE
from benchmarks.series import MULTI_FRAME, PIECE_BYTES, head
from benchmarks.wire import EXPLICIT, Connection
from tests.torture.adapter import CONFIG, Adapter, started

MIB = 1024**2
# The largest even number of 32 bits that is a length (PS3.5 section 7.1.1).
LONGEST_ELEMENT = 0xFFFF_FFFE
LARGEST_GROWTH = 200 * MIB


def long_data_set(instance: str, pixels: int, padding: int) -> Iterator[bytes]:
    """Yield a data set of so many bytes of pixels, and behind them so many of padding."""
    yield head(instance, MIB) + pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", pixels)
    yield from zeros(pixels)
    yield pack("<HH2sxxI", 0xFFFC, 0xFFFC, b"OB", padding)
    yield from zeros(padding)


def zeros(count: int) -> Iterator[bytes]:
    """Yield so many bytes, piece by piece."""
    piece = bytes(PIECE_BYTES)
    for at in range(0, count, PIECE_BYTES):
        yield piece[: count - at]


@pytest.mark.timeout(600)
def test_b29_five_gigabytes_are_stored_in_little_memory(tmp_path: Path, rounds: int) -> None:
    """The service grows by less than 200 MB; a tenth of it, where torture is not asked for."""
    pixels, padding = (LONGEST_ELEMENT, 1024 * MIB) if rounds > 1 else (400 * MIB, 100 * MIB)
    config = CONFIG.replace("TEST:", f"{AE_TITLE}:")
    with started(Adapter(tmp_path, durability="process-crash", config=config)) as adapter:
        assert adapter.process is not None
        service = psutil.Process(adapter.process.pid)
        before = service.memory_info().rss
        (Path("/proc") / str(service.pid) / "clear_refs").write_text("5")
        uid = generate_uid()
        with Connection(adapter.port).associate((MULTI_FRAME, EXPLICIT)) as connection:
            assert connection.store(1, MULTI_FRAME, uid, long_data_set(uid, pixels, padding)) == 0
        (file,) = (adapter.storage / "spool" / "instances").rglob("*.dcm")
        assert pixels + padding < file.stat().st_size < pixels + padding + MIB
        status = (Path("/proc") / str(service.pid) / "status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) * 1024
        assert peak - before < LARGEST_GROWTH
