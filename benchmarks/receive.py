"""Measures receiving, ours and others' in one run, and writes docs/performance.md.

`python -m benchmarks.receive` does it; `make bench` calls it.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import receivers, series
from benchmarks.receivers import AE_TITLE, Receiver
from benchmarks.series import Load

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
ROUNDS = 3
# DCMTK, as Debian builds it, turns Nagle's algorithm off where this is set; pynetdicom ignores it.
NO_DELAY = {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Case:
    """What each sender sends, how many there are, and whether both ends turn Nagle off."""

    load: str
    files: int
    senders: int
    nagle: bool

    @property
    def environment(self) -> Mapping[str, str]:
        """What both ends are started with."""
        return {} if self.nagle else NO_DELAY

    def __str__(self) -> str:
        nagle = "sender as shipped" if self.nagle else "TCP_NODELAY at both ends"
        return f"{self.load}, {self.senders} at a time, {nagle}"


@dataclass(frozen=True)
class Measured:
    """One run: instances per second, and milliseconds of the receiver's CPU for each."""

    rate: float
    cpu: float


CASES = (
    Case("MR 128x128", 60, 1, nagle=True),
    Case("MR 128x128", 400, 1, nagle=False),
    Case("CT 512x512", 200, 1, nagle=False),
    Case("CT 512x512, RLE", 100, 1, nagle=False),
    Case("MR 128x128", 400, 4, nagle=False),
    Case("CT 512x512", 100, 4, nagle=False),
    Case("MR 128x128", 100, 16, nagle=False),
)


def measure(case: Case, load: Load, receiver: Receiver) -> Measured:
    """Send a load with every sender at once, and measure until the last one has its answers."""
    words = ["storescu", "--aetitle", "SENDER", "--call", AE_TITLE, "--propose-lossless"]
    if "RLE" in case.load:
        words[-1] = "--propose-rle"
    words += ["127.0.0.1", str(receiver.port)]
    before, started = receiver.cpu_seconds(), time.perf_counter()
    environment = {**os.environ, **case.environment}
    senders = [
        subprocess.Popen([*words, *map(str, files)], env=environment, stdout=subprocess.DEVNULL)
        for files in load.parts(case.senders, case.files)
    ]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeError(f"{case}: a sender ended with {codes}")
    sent = case.files * case.senders
    return Measured(sent / seconds, (receiver.cpu_seconds() - before) * 1000 / sent)


def run(folder: Path) -> dict[Case, dict[str, Measured]]:
    """Measure every case with every receiver, the receivers taking turns; return the medians."""
    loads = series.make(folder / "series")
    runs: dict[Case, dict[str, list[Measured]]] = {
        case: {name: [] for name in receivers.ALL} for case in CASES
    }
    for number in range(ROUNDS):
        for case in CASES:
            for name, start in receivers.ALL.items():
                with receivers.running(start, folder / "store", case.environment) as receiver:
                    found = measure(case, loads[case.load], receiver)
                runs[case][name].append(found)
                print(f"{number + 1}/{ROUNDS} {case}: {name}: {found.rate:.0f}/s", file=sys.stderr)
    return {
        case: {name: _median(found) for name, found in by_name.items()}
        for case, by_name in runs.items()
    }


def _median(found: list[Measured]) -> Measured:
    return Measured(
        statistics.median(one.rate for one in found), statistics.median(one.cpu for one in found)
    )


def page(found: Mapping[Case, Mapping[str, Measured]]) -> str:
    """Return the page: machine and versions, then a table of rates and one of ratios."""
    return "\n".join(_lines(found))


def _lines(found: Mapping[Case, Mapping[str, Measured]]) -> Iterator[str]:
    names = list(receivers.ALL)
    head = f"| | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}"
    yield "# Performance\n"
    yield f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: medians of {ROUNDS} rounds, in"
    yield "which the receivers took turns; senders (DCMTK's storescu) and receiver on one machine."
    yield "Such machines are noisy: look at the ratios.\n"
    yield from (f"- {line}" for line in _machine())
    yield f"\n## Instances per second\n\n{head}"
    for case, by_name in found.items():
        yield f"| {case} | {' | '.join(f'{by_name[name].rate:.0f}' for name in names)} |"
    yield f"\n## How many times as fast DICOM Adapter is\n\n{head}"
    for case, by_name in found.items():
        ours = by_name[names[0]].rate
        yield f"| {case} | {' | '.join(f'{ours / by_name[name].rate:.2f}' for name in names)} |"
    yield f"\n## Milliseconds of the receiver's CPU per instance\n\n{head}"
    for case, by_name in found.items():
        yield f"| {case} | {' | '.join(f'{by_name[name].cpu:.2f}' for name in names)} |"
    yield "\n## What the numbers compare\n"
    yield "DICOM Adapter answers when file and ledger row are flushed to the disk. storescp and"
    yield "stock pynetdicom flush nothing and keep no index; Orthanc has an index."


def _machine() -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield f"{cores} cores, {platform.system()} {platform.machine()}"
    yield f"Python {platform.python_version()}"
    yield f"DICOM Adapter {version('dicom-adapter')}, pynetdicom {version('pynetdicom')}"
    for program in ("storescp", "Orthanc"):
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        yield (told.stdout or told.stderr).splitlines()[0].removeprefix("$dcmtk: ").strip("$ ")


def main() -> None:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder))
    PAGE.write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
