"""Measures our walk over a data set beside pydicom's reader, on pydicom's own example files.

`python -m benchmarks.walk` prints it; `make bench` has it as a section of docs/performance.md.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial

from dicom_adapter.receive.part10 import IDENTIFYING
from dicom_adapter.receive.walk import walk_of

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FEWEST_ELEMENTS = 100
SECONDS = 0.05


@dataclass(frozen=True)
class Walked:
    """Microseconds for a file: ours, pydicom's for the same values, and pydicom's for all."""

    name: str
    elements: int
    ours: float
    same: float
    full: float


def run(seconds: float = SECONDS) -> list[Walked]:
    """Measure every file for so many seconds each way."""
    with warnings.catch_warnings():
        # Some of the examples are broken on purpose.
        warnings.simplefilter("ignore")
        found = [_measure(path, seconds) for path in sorted(FILES.rglob("*.dcm"))]
    return [one for one in found if one is not None]


def _measure(path: Path, seconds: float) -> Walked | None:
    """Measure a file; None when it is none of those that are compared."""
    try:
        data_set = pydicom.dcmread(path)
        elements = sum(1 for _ in data_set.iterall())
        syntax = data_set.file_meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, ValueError, OSError):
        return None
    whole = path.read_bytes()
    if elements < FEWEST_ELEMENTS:
        return None
    body = memoryview(whole)[_start(whole) :]

    def ours() -> None:
        walk = walk_of(syntax, IDENTIFYING)
        walk.feed(body)
        walk.finish()

    def same() -> None:
        tags = list(IDENTIFYING)
        pydicom.dcmread(BytesIO(whole), stop_before_pixels=True, specific_tags=tags)

    def full() -> None:
        pydicom.dcmread(BytesIO(whole))

    times = (_microseconds(each, seconds) for each in (ours, same, full))
    return Walked(path.name, elements, *times)


def _start(whole: bytes) -> int:
    """Return where the data set begins, behind the file meta information."""
    file = BytesIO(whole)
    read_partial(file, stop_when=lambda *_: True)
    return file.tell()


def _microseconds(call: Callable[[], None], seconds: float) -> float:
    """Return the median of a call's durations, called again and again for so long."""
    durations = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1e6


def table(found: Sequence[Walked]) -> Iterator[str]:
    """Return what was measured as lines of a table."""
    yield "| File | Elements | Walk, µs | pydicom, same values, µs | Ratio | All, µs | Ratio |"
    yield f"| --- |{' ---: |' * 6}"
    for one in found:
        cells = f"{one.elements} | {one.ours:.0f} | {one.same:.0f} | {one.same / one.ours:.1f}"
        yield f"| {one.name} | {cells} | {one.full:.0f} | {one.full / one.ours:.1f} |"
    same = statistics.median(one.same / one.ours for one in found)
    full = statistics.median(one.full / one.ours for one in found)
    yield f"| median | | | | {same:.1f} | | {full:.1f} |"


if __name__ == "__main__":
    print("\n".join(table(run())))
