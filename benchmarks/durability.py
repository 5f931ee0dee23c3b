"""Measures what it costs an instance that its acknowledgement survives a power cut.

`python -m benchmarks.durability` prints the medians of the milliseconds between two answers to a
lone sender, for each durability, and of the flushes alone on the same disk: the rest of the
difference is ours.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from pydicom.uid import generate_uid

from benchmarks import receivers, series
from benchmarks.receivers import ALL, POWER_LOSS, PROCESS_CRASH
from benchmarks.series import MULTI_FRAME
from benchmarks.wire import EXPLICIT, Connection

#: Bytes of pixels: a small MR image, and a CT image.
SIZES = {"MR 128x128": 128 * 128 * 2, "CT 512x512": 512 * 512 * 2}
INSTANCES = 200
ROUNDS = 5
FLUSHES = "the flushes alone"
# What the ledger's log grows by for an instance: eight pages, each with its header.
LEDGER_BYTES = 8 * (4096 + 24)

Store = Callable[[], None]


def main() -> None:
    """Print a table: a line for each size, and what is over what the flushes take."""
    with tempfile.TemporaryDirectory(dir=".") as name, ExitStack() as stack:
        folder = Path(name)
        ports = {
            name: stack.enter_context(
                receivers.running(ALL[name], folder / str(number), {"TCP_NODELAY": "1"})
            ).port
            for number, name in enumerate((PROCESS_CRASH, POWER_LOSS))
        }
        print("| ms per instance | process-crash | power-loss | flushes alone | beyond them |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for load, size in SIZES.items():
            print(f"| {load} | {' | '.join(_row(ports, folder, size))} |")


def _row(ports: dict[str, int], folder: Path, size: int) -> Iterator[str]:
    found: dict[str, list[float]] = {PROCESS_CRASH: [], POWER_LOSS: [], FLUSHES: []}
    beyond = []
    for number in range(ROUNDS):
        print(f"{size} bytes, round {number + 1} of {ROUNDS}", file=sys.stderr)
        for name, port in ports.items():
            with Connection(port).associate((MULTI_FRAME, EXPLICIT)) as connection:
                found[name].append(_median(_sender(connection, size)))
        found[FLUSHES].append(_median(_flusher(folder / f"{size}-{number}", size)))
        crash, power, flushes = (values[-1] for values in found.values())
        beyond.append(power - crash - flushes)
    for values in (*found.values(), beyond):
        yield f"{statistics.median(values):.2f}"


def _median(store: Store) -> float:
    """Return the milliseconds of one of many; the first ones make folders, and do not count."""
    os.sync()
    taken = []
    for _ in range(INSTANCES):
        before = time.perf_counter()
        store()
        taken.append((time.perf_counter() - before) * 1000)
    return statistics.median(taken[INSTANCES // 10 :])


def _sender(connection: Connection, size: int) -> Store:
    def store() -> None:
        instance = generate_uid()
        status = connection.store(1, MULTI_FRAME, instance, series.large(instance, size))
        if status:
            raise RuntimeError(f"answered 0x{status:04X}")

    return store


def _flusher(folder: Path, size: int) -> Store:
    """Return what does to the disk what storing does, and nothing else."""
    folder.mkdir()
    numbers, content, pages = count(), os.urandom(size), os.urandom(LEDGER_BYTES)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT)

    def store() -> None:
        part = folder / f"{next(numbers)}.part"
        file = os.open(part, os.O_WRONLY | os.O_CREAT)
        os.write(file, content)
        os.fdatasync(file)
        os.close(file)
        os.link(part, part.with_suffix(".dcm"))
        os.fsync(directory)
        os.write(ledger, pages)
        os.fdatasync(ledger)

    return store


if __name__ == "__main__":
    main()
