"""Looks over each series of the job and reports what is wrong with it, with a montage to see it by.

    python -m dicom_adapter.pipelines.series_report INPUT OUTPUT

The series are those of the job's manifest (DICOM_ADAPTER_JOB) or, without one, all that INPUT holds.
OUTPUT receives `report.json`, and for each series that has an image which can be decoded
`series-01-montage.png` and `series-01-montage.dcm`: the same montage, for people and, as a Secondary
Capture image of the same study, for the archive. Steps: read, measure, render.

report.json is `{"series": [...]}`, in the order of the job, each with

- `series` (from 1), `modality`, `study_instance_uid`, `series_instance_uid`, `sop_class_uid`,
  `instances`, `images` (frames), `rows`, `columns`;
- `instance_numbers`: `first`, `last`, `missing` (ranges, both ends included), `duplicates`,
  `absent`;
- `stacks`: images of one orientation, size, spacing and frame of reference: `images`, `positions`,
  `direction`, `orientation`, `pixel_spacing_mm`, `slice_thickness_mm`, `slice_spacing_mm` (along
  the stack, from ImagePositionPatient), `smallest_spacing_mm`, `largest_spacing_mm`,
  `missing_slices`, `tilt_degrees`, `first_position_mm`, `last_position_mm`; null where unknown;
- `intensity`: `unit`, `minimum`, `maximum`, `mean`, `standard_deviation`, `values` (how many, not
  counting padding), `sampled_every` (percentiles and bins are of one value in so many),
  `percentiles`, `edges` and `counts` of the bins; rescaled values, for colour the luminance; null
  without a decodable image;
- `montage`: `image`, `dicom`, `tiles`; or null;
- `findings`: `code`, `severity` (info, warning, error), `message`.

The codes: unreadable-instances, mixed-studies, mixed-series, mixed-modalities, mixed-sop-classes,
mixed-transfer-syntaxes, mixed-frames-of-reference, mixed-sizes, mixed-pixel-spacings,
mixed-photometric-interpretations, mixed-rescales, repeated-instances, invalid-values, not-an-image,
truncated-pixel-data, undecodable-pixel-data, localizer, single-image, rescale-slope-zero,
missing-instance-numbers, duplicate-instance-numbers, absent-instance-numbers,
unusual-instance-numbers, absent-position, absent-orientation, absent-pixel-spacing,
mixed-orientations, orientation-not-orthonormal, repeated-positions, duplicate-positions,
missing-slices, irregular-spacing, gantry-tilt.
"""

import json
import sys
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures

from dicom_adapter.pipelines.capture import write_capture
from dicom_adapter.pipelines.checks import (
    number_findings,
    read_numbers,
    series_findings,
    stack_findings,
)
from dicom_adapter.pipelines.command import Progress, run, say
from dicom_adapter.pipelines.findings import Finding, counted
from dicom_adapter.pipelines.geometry import (
    Stack,
    direction_name,
    measure,
    split,
    steps_between,
)
from dicom_adapter.pipelines.intensity import Intensity, IntensityBuilder
from dicom_adapter.pipelines.manifest import Job
from dicom_adapter.pipelines.montage import Tile, compose, make_tile, pick, tile_side
from dicom_adapter.pipelines.pixels import PixelError, padding_mask, rescaled, stored_frames
from dicom_adapter.pipelines.series import Image, Series, read_series

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Measured:
    """One series, looked over: what the report and the montage are made from."""

    series: Series
    stacks: tuple[Stack, ...]
    findings: tuple[Finding, ...]
    intensity: Intensity | None
    montage: np.ndarray[Any, np.dtype[np.uint8]] | None
    tiles: int


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return run("Reports on each series, with a montage of it.", work, arguments)


def work(job: Job, output: Path, progress: Progress) -> None:
    """Write the report on the job's series and their montages into the output folder."""
    total, done = sum(map(len, job.series)), count(1)
    read = [
        read_series(number, files, lambda: progress.report("read", next(done), total))
        for number, files in enumerate(job.series, start=1)
    ]
    progress.report("read", 1, 1)
    total, done = sum(len(series.images) for series in read), count(1)
    measured = [
        look_over(series, lambda: progress.report("measure", next(done), total)) for series in read
    ]
    progress.report("measure", 1, 1)
    reports = []
    for index, one in enumerate(measured, start=1):
        reports.append(_report(one, _write_montage(one, job.id, output)))
        progress.report("render", index, len(measured))
        codes = ", ".join(sorted({finding.code for finding in one.findings})) or "nothing found"
        size = f"{counted(len(one.series.instances), 'instance')}"
        say(f"{one.series.title}: {size}, {counted(len(one.series.images), 'image')}: {codes}")
    text = json.dumps({"series": reports}, indent=2, allow_nan=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    progress.report("render", 1, 1)
