"""The page that a run is told by: docs/performance.md."""

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import figures, receivers
from benchmarks.receivers import STORESCP
from benchmarks.throughput import CASES, Case, Rounds

NAMES = tuple(receivers.ALL)


def of(found: Rounds, *, rounds: int) -> str:
    """Return the page."""
    return "\n".join(_lines(found, rounds)) + "\n"


def _lines(found: Rounds, rounds: int) -> Iterator[str]:
    yield "# Performance\n"
    yield f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: medians of {rounds} rounds, in"
    yield "which the receivers took turns; senders (DCMTK's storescu) and receiver on one machine."
    yield "Such machines are noisy: look at the ratios, each the median of those of the rounds.\n"
    yield from (f"- {line}" for line in _machine())
    yield "\n## Figures to reach\n"
    yield from figures.table(list(figures.of_throughput(found)))
    yield from _side_by_side(found)


def _side_by_side(found: Rounds) -> Iterator[str]:
    yield "\n## Instances per second\n"
    yield "Both ends with TCP_NODELAY, where it does not say *as shipped*: there Nagle's algorithm"
    yield "in the sender meets delayed acknowledgement in a receiver that does not prevent it.\n"
    yield from _table(lambda case, name: f"{found.rate(case, name):.1f}")
    yield f"\n## How many times as fast as {STORESCP}\n"
    yield from _table(lambda case, name: f"{found.times_as_fast(case, name, STORESCP):.2f}")
    yield "\n## Milliseconds of the receiver's CPU per instance\n"
    yield "Of all its processes, until they are idle again.\n"
    yield from _table(lambda case, name: f"{found.cpu(case, name):.2f}")
    yield "\n## What the numbers compare\n"
    yield "DICOM Adapter is measured whole: it answers when file and ledger row are there, with"
    yield "`storage.durability: power-loss` flushed to the disk. storescp and stock pynetdicom"
    yield "flush nothing and keep no index; Orthanc has an index. storescp decodes and encodes what"
    yield "it stores; stock pynetdicom stores bytes as they came, but not as a Part 10 file."


def _table(cell: Callable[[Case, str], str]) -> Iterator[str]:
    yield f"| | {' | '.join(NAMES)} |\n| --- |{' ---: |' * len(NAMES)}"
    for case in CASES:
        yield f"| {case} | {' | '.join(cell(case, name) for name in NAMES)} |"


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
