"""Measures how fast each receiver takes series, the receivers taking turns."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydicom.uid import generate_uid

from benchmarks import receivers, series
from benchmarks.receivers import AE_TITLE, OURS, Receiver
from benchmarks.series import CT, GIGABYTE, LARGE, MR, MULTI_FRAME, RLE
from benchmarks.wire import EXPLICIT, Connection

# DCMTK, as Debian builds it, turns Nagle's algorithm off where this is set; pynetdicom ignores it.
NO_DELAY = {"TCP_NODELAY": "1"}
# As shipped, an instance takes others 90 ms: a sender sends them so many, and us all there are.
FEW = 30
ROUNDS = 3
# The kernel tells CPU in steps of it.
CLOCK_TICK_SECONDS = 0.01


@dataclass(frozen=True)
class Case:
    """What is sent, how many files by how many senders, and whether both ends turn Nagle off."""

    load: str
    senders: int
    files: int
    nagle: bool = False

    def __str__(self) -> str:
        nagle = ", sender as shipped" if self.nagle else ""
        return f"{self.load}, {self.senders} at a time{nagle}"

    def share(self, name: str, part: float) -> int:
        """Return how many files a receiver is sent, as many by each sender."""
        waits = self.nagle and name not in OURS
        files = min(self.files, FEW * self.senders) if waits else self.files
        return max(1, int(files * part) // self.senders) * self.senders


AS_SHIPPED = tuple(
    Case(load, senders, files, nagle=True)
    for load, senders, files in ((MR, 1, 1000), (CT, 1, 200), (MR, 16, 960))
)
NODELAY = {
    (load, senders): Case(load, senders, files)
    for load, senders, files in (
        (MR, 1, 1000),
        (MR, 4, 1000),
        (MR, 16, 960),
        (CT, 1, 200),
        (CT, 4, 200),
        (CT, 16, 192),
        (RLE, 1, 100),
        (RLE, 4, 100),
        (RLE, 16, 96),
        (LARGE, 1, 1),
    )
}
CASES = (*AS_SHIPPED, *NODELAY.values())


@dataclass(frozen=True)
class Measured:
    """One run: instances per second, and milliseconds of the receiver's CPU for each."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Rounds:
    """Every run there was; what is told of them is the median, and of ratios that of each round."""

    runs: dict[tuple[Case, str], list[Measured]] = field(default_factory=dict)

    def add(self, case: Case, name: str, found: Measured) -> None:
        """Add a receiver's run of a case."""
        self.runs.setdefault((case, name), []).append(found)

    def rate(self, case: Case, name: str) -> float:
        """Return instances per second."""
        return statistics.median(run.rate for run in self.runs[case, name])

    def cpu(self, case: Case, name: str) -> float:
        """Return milliseconds of CPU per instance."""
        return statistics.median(run.cpu for run in self.runs[case, name])

    def times_as_fast(self, case: Case, name: str, other: str) -> float:
        """Return how many times the other's rate a receiver's is."""
        return statistics.median(a.rate / b.rate for a, b in self._pairs(case, name, other))

    def times_the_cpu(self, case: Case, name: str, other: str) -> float:
        """Return how many times the other's CPU a receiver uses."""
        return statistics.median(a.cpu / b.cpu for a, b in self._pairs(case, name, other))

    def _pairs(self, case: Case, name: str, other: str) -> list[tuple[Measured, Measured]]:
        return list(zip(self.runs[case, name], self.runs[case, other], strict=True))


def run(folder: Path, *, rounds: int, part: float) -> Rounds:
    """Measure every case with every receiver, with a part of the files."""
    files, found = series.make(folder / "series", part), Rounds()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for cases, environment in ((AS_SHIPPED, {}), (NODELAY.values(), NO_DELAY)):
            # Nothing is sent twice: a receiver may well do less for what it has.
            rest = {load: iter(paths) for load, paths in files.items()}
            with _all_running(folder, environment) as running:
                for case in cases:
                    sizes = {name: case.share(name, part) for name in running}
                    paths = list(islice(rest.get(case.load, iter(())), max(sizes.values())))
                    for name in _turned(list(running), number):
                        one = measure(case, paths[: sizes[name]], running[name], part)
                        found.add(case, name, one)
                        told = f"{one.rate:.1f}/s, {one.cpu:.2f} ms of CPU each"
                        print(f"{case}: {name}: {told}", file=sys.stderr)
    return found


@contextmanager
def _all_running(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, Receiver]]:
    """Run every receiver until the block ends; those that are not sent to are idle."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(receivers.running(start, folder / str(number), environment))
            for number, (name, start) in enumerate(receivers.ALL.items())
        }


def _turned(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def measure(case: Case, paths: Sequence[Path], receiver: Receiver, part: float) -> Measured:
    """Send a load with every sender at once; time goes on until the last one has its answers."""
    # What was stored before must not be written while this is.
    os.sync()
    before, started = receiver.cpu_seconds(), time.perf_counter()
    if case.load == LARGE:
        _stream(receiver.port, int(GIGABYTE * part))
    else:
        _storescu(case, paths, receiver.port)
    seconds, sent = time.perf_counter() - started, len(paths) or 1
    receiver.settle()
    used = max(receiver.cpu_seconds() - before, CLOCK_TICK_SECONDS)
    return Measured(sent / seconds, used * 1000 / sent)


def _stream(port: int, size: int) -> None:
    with Connection(port).associate((MULTI_FRAME, EXPLICIT)) as connection:
        instance = generate_uid()
        status = connection.store(1, MULTI_FRAME, instance, series.large(instance, size))
    if status:
        raise RuntimeError(f"the large instance was answered 0x{status:04X}")


def _storescu(case: Case, files: Sequence[Path], port: int) -> None:
    propose = "--propose-rle" if case.load == RLE else "--propose-lossless"
    words = ["storescu", "--aetitle", "SENDER", "--call", AE_TITLE, propose]
    senders = [
        subprocess.Popen(
            [*words, "127.0.0.1", str(port), *map(str, files[n :: case.senders])],
            env={**os.environ, **({} if case.nagle else NO_DELAY)},
            stdout=subprocess.DEVNULL,
        )
        for n in range(case.senders)
    ]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"{case}: senders ended with {codes}")
