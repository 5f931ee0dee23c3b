"""The page that a run is told by: docs/performance.md."""

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import figures, receivers, walk
from benchmarks.crowd import Crowds, Latency
from benchmarks.hostile import Cost
from benchmarks.receivers import PROCESS_CRASH, STORESCP, TWO_PROCESSES, UNRECORDED
from benchmarks.series import CT, MR
from benchmarks.storm import PER_SECOND
from benchmarks.throughput import CASES, FEW, NODELAY, Case, Rounds
from benchmarks.walk import Walked

NAMES = tuple(receivers.ALL)


@dataclass(frozen=True)
class Found:
    """All that was measured in one run."""

    rounds: Rounds
    crowds: Crowds
    long_instance: Cost
    hostile: Mapping[str, Cost]
    walked: Sequence[Walked]


def of(found: Found, *, rounds: int) -> str:
    """Return the page."""
    return "\n".join(_lines(found, rounds)) + "\n"


def _lines(found: Found, rounds: int) -> Iterator[str]:
    yield "# Performance\n"
    yield f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: medians of {rounds} rounds, in"
    yield "which the receivers took turns; senders (DCMTK's storescu) and receiver on one machine."
    yield "Such machines are noisy: look at the ratios, each the median of those of the rounds.\n"
    yield from (f"- {line}" for line in _machine())
    yield "\n## Figures to reach\n"
    yield from figures.table(
        [
            *figures.of_throughput(found.rounds),
            *figures.of_crowds(found.crowds),
            *figures.of_costs(found.long_instance, found.hostile),
        ]
    )
    yield from _side_by_side(found.rounds)
    yield from _crowds(found.crowds)
    yield from _costs(found)
    yield "\n## Reading a data set's structure\n"
    yield "What is done with each instance as it arrives: `dicom_adapter.receive.walk` proves it"
    yield "whole and takes five values out. Beside it pydicom's `dcmread`, from memory, of the same"
    yield "values without the pixels, and of all. pydicom's own example files.\n"
    yield from walk.table(found.walked)


def _side_by_side(found: Rounds) -> Iterator[str]:
    yield "\n## Instances per second\n"
    yield "Both ends with TCP_NODELAY, where it does not say *as shipped*: there Nagle's algorithm"
    yield "in the sender meets delayed acknowledgement in a receiver that does not prevent it, so"
    yield f"others are sent {FEW} instances by each sender. The multi-frame instance is streamed by"
    yield "a sender of our own, the same to all.\n"
    yield from _table(lambda case, name: figures.shown(found.rate(case, name)))
    yield f"\n## How many times as fast as {STORESCP}\n"
    yield from _table(lambda case, name: f"{found.times_as_fast(case, name, STORESCP):.2f}")
    yield "\n## Milliseconds of the receiver's CPU per instance\n"
    yield "Of all its processes, until they are idle again.\n"
    yield from _table(lambda case, name: f"{found.cpu(case, name):.2f}")
    yield "\n## What the numbers compare\n"
    yield "DICOM Adapter is measured whole: it answers when file and ledger row are there, with"
    yield "`storage.durability: power-loss` flushed to the disk. storescp and stock pynetdicom"
    yield "flush nothing and keep no index; Orthanc has an index. storescp decodes and encodes what"
    yield "it stores; stock pynetdicom stores bytes as they came, but not as a Part 10 file.\n"
    yield f"*{UNRECORDED.capitalize()}* is this product's path from the socket to the file, which"
    yield "hashes and checks as always, but records and groups nothing and loses all that it knew"
    yield "when it ends: what the whole is slower than this is what keeping the promise costs, and"
    yield "what this is slower than storescp is what a receiver in Python costs.\n"
    yield f"Rates, as many times that of {STORESCP}, at 1, 4 and 16 associations:\n"
    for load in (MR, CT):
        alone, whole = _ratios(found, load, UNRECORDED), _ratios(found, load, PROCESS_CRASH)
        yield f"- {load}: receiving alone {alone}; the whole {whole}"
    yield "\nSo is `dicom.processes` by default 1; two processes, as many times the rate of one:\n"
    for load in (MR, CT):
        yield f"- {load}: {_ratios(found, load, TWO_PROCESSES, PROCESS_CRASH)}"


def _ratios(found: Rounds, load: str, name: str, other: str = STORESCP) -> str:
    cases = [NODELAY[load, senders] for senders in (1, 4, 16)]
    return ", ".join(f"{found.times_as_fast(case, name, other):.2f}" for case in cases)


def _table(cell: Callable[[Case, str], str]) -> Iterator[str]:
    yield f"| | {' | '.join(NAMES)} |\n| --- |{' ---: |' * len(NAMES)}"
    for case in CASES:
        yield f"| {case} | {' | '.join(cell(case, name) for name in NAMES)} |"


def _crowds(crowds: Crowds) -> Iterator[str]:
    yield "\n## Many associations\n"
    yield "With `storage.durability: process-crash`. Beside the crowd a good peer, by turns, sends"
    yield "C-ECHOs and instances of 32 KB. Memory is what the service grows by: what it has free"
    yield "from before is taken first, and the kernel's buffers do not count.\n"
    yield "| | CPU, % of a core | KB each | C-ECHO, ms: median, worst | C-STORE: median, worst |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for crowd in (crowds.few, crowds.many):
        cost = f"{crowd.cpu_percent:.2f} | {crowd.kilobytes:.1f}"
        yield f"| {crowd.number} idle | {cost} | {_told(crowd.echo)} | {_told(crowd.store)} |"
    answered = f"{crowds.storm_answered} of {crowds.storm_asked} answered"
    name = f"storm of {PER_SECOND} connections per second, {answered}"
    yield f"| {name} | | | {_told(crowds.storm)} | |"


def _told(latency: Latency) -> str:
    return f"{latency.median:.2f}, {latency.worst:.2f}"


def _costs(found: Found) -> Iterator[str]:
    yield "\n## What is long, and what means harm\n"
    yield "Growth of memory at its peak, and CPU until the service is idle again; it has answered a"
    yield "good peer after each.\n"
    yield "| | Outcome | MB | s of CPU | s |\n| --- | --- | ---: | ---: | ---: |"
    for name, cost in {"one instance of 2 GB": found.long_instance, **found.hostile}.items():
        cells = f"{cost.megabytes:.1f} | {cost.cpu:.2f} | {cost.seconds:.1f}"
        yield f"| {name} | {cost.outcome} | {cells} |"


def _machine() -> Iterator[str]:
    info = Path("/proc/cpuinfo").read_text("utf-8")
    model = next(line for line in info.splitlines() if line.startswith("model name"))
    cores, kernel = len(os.sched_getaffinity(0)), f"{platform.system()} {platform.release()}"
    yield f"{cores} cores, {model.partition(': ')[2]}, {kernel}"
    yield f"Python {platform.python_version()}"
    yield f"DICOM Adapter {version('dicom-adapter')}, pynetdicom {version('pynetdicom')}"
    for program in ("storescp", "Orthanc"):
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        yield (told.stdout or told.stderr).splitlines()[0].removeprefix("$dcmtk: ").strip("$ ")
