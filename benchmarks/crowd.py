"""Measures what many associations cost us, and how a good peer fares beside them."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydicom.uid import generate_uid

from benchmarks import receivers, series, storm
from benchmarks.receivers import Receiver
from benchmarks.series import MULTI_FRAME
from benchmarks.wire import EXPLICIT, IMPLICIT, VERIFICATION, Connection

FEW, MANY = 200, 1000
CONTEXTS = ((VERIFICATION, IMPLICIT), (MULTI_FRAME, EXPLICIT))
# A crowd needs its room, and must not be sent away while it is measured.
ROOM = "max_associations: 2000, timeouts: {idle: 10m}"
_SMALL_BYTES = 32768
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class Latency:
    """How long answers take, in milliseconds."""

    median: float
    worst: float

    @classmethod
    def of(cls, call: Callable[[], int], more: Iterator[object]) -> Self:
        """Measure a call that returns a status, once for each of `more`."""
        found = []
        for _ in more:
            began = time.perf_counter()
            status = call()
            found.append((time.perf_counter() - began) * 1000)
            if status:
                raise RuntimeError(f"answered 0x{status:04X}")
            time.sleep(_PAUSE_SECONDS)
        return cls(statistics.median(found), max(found))


@dataclass(frozen=True)
class Idle:
    """A crowd of idle associations: what it costs, and what a good peer sees."""

    number: int
    cpu_percent: float
    kilobytes: float
    echo: Latency
    store: Latency


@dataclass(frozen=True)
class Crowds:
    """What was found with a few and with many idle associations, and in a storm."""

    few: Idle
    many: Idle
    storm_answered: int
    storm_asked: int
    storm: Latency


def run(folder: Path, *, part: float) -> Crowds:
    """Measure all of it, with a part of the time that it takes."""
    start = receivers.adapter("process-crash", ROOM)
    with receivers.running(start, folder / "few") as receiver:
        few = _idle(receiver, FEW, 10 * part)
    with receivers.running(start, folder / "many") as receiver:
        many = _idle(receiver, MANY, 10 * part)
    with receivers.running(start, folder / "storm") as receiver:
        seconds = max(1.0, 5 * part)
        answered, latency = _storm(receiver, seconds)
    return Crowds(few, many, answered, int(seconds * storm.PER_SECOND), latency)


def _idle(receiver: Receiver, number: int, seconds: float) -> Idle:
    with Connection(receiver.port).associate(*CONTEXTS) as good:
        # What the first instance and echo bring into memory is not the crowd's.
        _store(good)
        good.echo()
        receiver.settle()
        empty = receiver.memory()
        with _crowd(receiver.port, number):
            receiver.settle()
            kilobytes = (receiver.memory() - empty) / 1024 / number
            used, began = receiver.cpu_seconds(), time.perf_counter()
            time.sleep(seconds)
            used = receiver.cpu_seconds() - used
            percent = used / (time.perf_counter() - began) * 100
            echo = Latency.of(good.echo, iter(range(200)))
            store = Latency.of(lambda: _store(good), iter(range(100)))
    print(f"{number} idle: {percent:.2f} % CPU, {echo}, {store}", file=sys.stderr)
    return Idle(number, percent, kilobytes, echo, store)


@contextmanager
def _crowd(port: int, number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(Connection(port)).associate()
        yield


def _store(good: Connection) -> int:
    instance = generate_uid()
    return good.store(3, MULTI_FRAME, instance, series.large(instance, _SMALL_BYTES))


def _storm(receiver: Receiver, seconds: float) -> tuple[int, Latency]:
    """Return how many connections of a storm were answered, and how echoes were meanwhile."""
    with Connection(receiver.port).associate(*CONTEXTS) as good:
        good.echo()
        process = storm.start(receiver.port, seconds)
        latency = Latency.of(good.echo, _until_ended(process))
        told, _ = process.communicate()
    return int(told), latency


def _until_ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    while process.poll() is None:
        yield None
