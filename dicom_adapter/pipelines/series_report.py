"""Looks over each series of the job and reports what is wrong with it, with a montage to see it by.

    python -m dicom_adapter.pipelines.series_report INPUT OUTPUT

The series are those of the job's manifest (DICOM_ADAPTER_JOB) or, without one, all that INPUT
holds. OUTPUT receives `report.json`, and for each series that has an image which can be decoded
`series-01-montage.png` and `series-01-montage.dcm`: the same montage, for people and, as a
Secondary Capture image of the same study, for the archive. Steps: read, measure, render.

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
- `montage`: `image`, `dicom` (null when the series names no study), `tiles`; or null;
- `findings`: `code`, `severity` (info, warning, error), `message`.

The codes: unreadable-instances, mixed-studies, mixed-series, mixed-modalities, mixed-sop-classes,
mixed-transfer-syntaxes, mixed-frames-of-reference, mixed-sizes, mixed-pixel-spacings,
mixed-photometric-interpretations, mixed-rescales, repeated-instances, invalid-values, not-an-image,
truncated-pixel-data, undecodable-pixel-data, localizer, single-image, rescale-slope-zero,
missing-instance-numbers, duplicate-instance-numbers, absent-instance-numbers,
unusual-instance-numbers, no-geometry, absent-position, absent-orientation, absent-pixel-spacing,
mixed-orientations, orientation-not-orthonormal, repeated-positions, duplicate-positions,
missing-slices, irregular-spacing, gantry-tilt.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from pydicom.dataset import Dataset
from pydicom.uid import UID

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
    Layout,
    Stack,
    direction_name,
    measure,
    split,
    steps_between,
)
from dicom_adapter.pipelines.intensity import Intensity, IntensityBuilder
from dicom_adapter.pipelines.manifest import Job
from dicom_adapter.pipelines.montage import Tile, compose, make_tile, pick, tile_side
from dicom_adapter.pipelines.pixels import (
    Grey,
    PixelError,
    Stored,
    padding_mask,
    rescaled,
    stored_frames,
)
from dicom_adapter.pipelines.series import Image, Instance, Series, read_series

LAYOUT_KEYS = (
    "positions",
    "slice_spacing_mm",
    "smallest_spacing_mm",
    "largest_spacing_mm",
    "missing_slices",
    "tilt_degrees",
    "first_position_mm",
    "last_position_mm",
)
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Measured:
    """One series, looked over: what the report and the montage are made from."""

    series: Series
    stacks: tuple[Stack, ...]
    findings: tuple[Finding, ...]
    intensity: Intensity | None
    montage: npt.NDArray[np.uint8] | None
    tiles: int


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return run("Reports on each series, with a montage of it.", work, arguments)


def work(job: Job, output: Path, progress: Progress) -> None:
    """Write the report on the job's series and their montages into the output folder."""
    done = progress.counter("read", sum(map(len, job.series)))
    read = [read_series(number, files, done) for number, files in enumerate(job.series, start=1)]
    progress.report("read", 1, 1)
    done = progress.counter("measure", sum(len(series.images) for series in read))
    measured = [look_over(series, done) for series in read]
    progress.report("measure", 1, 1)
    reports = []
    done = progress.counter("render", len(measured))
    for one in measured:
        reports.append(_report(one, _write_montage(one, job.id, output)))
        codes = ", ".join(sorted({finding.code for finding in one.findings})) or "nothing found"
        size = counted(len(one.series.instances), "instance")
        say(f"{one.series.title}: {size}, {counted(len(one.series.images), 'image')}: {codes}")
        done()
    text = json.dumps({"series": reports}, indent=2, allow_nan=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    progress.report("render", 1, 1)


def look_over(series: Series, done: Callable[[], None]) -> Measured:
    """Check the series and read its pixels once; `done` is called after each image."""
    stacks = split(series)
    shown = _in_space(stacks)
    shown = [shown[index] for index in pick(len(shown))]
    slots = {_key(image): slot for slot, image in enumerate(shown)}
    side = tile_side(len(shown))
    tiles: dict[int, Tile] = {}
    builder = _builder(series)
    failed = 0
    for instance in series.instances:
        good = 0
        try:
            for image, stored, header in _decoded(instance):
                builder.add(_grey(stored, image), padding_mask(stored, image.pixels))
                slot = slots.get(_key(image))
                if slot is not None:
                    tiles[slot] = make_tile(stored, header, image, side)
                good += 1
                done()
        except PixelError:
            failed += len(instance.planes) - good
    intensity = builder.result()
    ordered = [tiles[slot] for slot in sorted(tiles)]
    window = intensity.window() if intensity else (0.0, 1.0)
    return Measured(
        series=series,
        stacks=stacks,
        findings=(*_findings(series, stacks), *_undecodable(series, failed)),
        intensity=intensity,
        montage=compose(ordered, window, side) if ordered else None,
        tiles=len(ordered),
    )


def _in_space(stacks: tuple[Stack, ...]) -> list[Image]:
    """All images, stack by stack, each sorted along its normal where the positions are known."""
    ordered: list[Image] = []
    for stack in stacks:
        layout = measure(stack)
        places = [index for same in layout.order for index in same] if layout else []
        ordered += [stack.images[index] for index in places] or stack.images
    return ordered


def _key(image: Image) -> tuple[Path, int]:
    """What tells one image of the job from another."""
    return image.instance.path, image.plane.frame


def _builder(series: Series) -> IntensityBuilder:
    """The builder for so many frames of that size, the largest if they differ."""
    images = series.images
    columns = max((image.pixels.columns for image in images), default=1)
    rows = max((image.pixels.rows for image in images), default=1)
    return IntensityBuilder(len(images), columns, rows * columns)


def _decoded(instance: Instance) -> Iterator[tuple[Image, Stored, Dataset]]:
    """Each of the instance's frames with what belongs to it."""
    if instance.pixels is None:
        return
    frames = stored_frames(instance, range(len(instance.planes)))
    for plane, (stored, header) in zip(instance.planes, frames, strict=False):
        yield Image(instance, instance.pixels, plane), stored, header


def _grey(stored: Stored, image: Image) -> Grey:
    """The frame's intensities: rescaled values, or the luminance of its colours."""
    if stored.ndim > 2:  # noqa: PLR2004 - rows, columns and samples
        return stored.astype(np.float32) @ LUMINANCE
    return rescaled(stored, image)


def _findings(series: Series, stacks: tuple[Stack, ...]) -> Iterator[Finding]:
    """All findings that need no pixels."""
    yield from series_findings(series)
    yield from number_findings(read_numbers(series.instances))
    yield from stack_findings(series, stacks)


def _undecodable(series: Series, failed: int) -> Iterator[Finding]:
    """The finding about images that could not be decoded, if there are any."""
    if failed:
        names = {UID(each.transfer_syntax).name for each in series.instances if each.pixels}
        of = f"{failed} of {counted(len(series.images), 'image')}"
        message = f"{of} could not be decoded ({', '.join(sorted(names))})"
        yield Finding("undecodable-pixel-data", "error", message)


def _write_montage(one: Measured, job: str, output: Path) -> dict[str, Any] | None:
    """Write both forms of the montage, and return what the report says of them."""
    if one.montage is None:
        return None
    name = f"series-{one.series.number:02d}-montage"
    Pictures.fromarray(one.montage).save(output / f"{name}.png")
    text = f"Montage of {one.tiles} of {counted(len(one.series.images), 'image')}"
    written = write_capture(output / f"{name}.dcm", one.montage, one.series, job, text)
    dicom = f"{name}.dcm" if written else None
    return {"image": f"{name}.png", "dicom": dicom, "tiles": one.tiles}


def _report(one: Measured, montage: dict[str, Any] | None) -> dict[str, Any]:
    """The series as it stands in report.json."""
    instances, images = one.series.instances, one.series.images
    first = instances[0] if instances else None
    numbers = read_numbers(instances)
    return {
        "series": one.series.number,
        "modality": one.series.modality or None,
        "study_instance_uid": first.study_instance_uid if first else None,
        "series_instance_uid": first.series_instance_uid if first else None,
        "sop_class_uid": first.sop_class_uid if first else None,
        "instances": len(instances),
        "images": len(images),
        "rows": images[0].pixels.rows if images else None,
        "columns": images[0].pixels.columns if images else None,
        "instance_numbers": {
            "first": numbers.first,
            "last": numbers.last,
            "missing": numbers.missing,
            "duplicates": numbers.duplicates,
            "absent": numbers.absent,
        },
        "stacks": [_stack_report(stack, measure(stack)) for stack in one.stacks],
        "intensity": _intensity_report(one.intensity, images),
        "montage": montage,
        "findings": [finding.as_json() for finding in one.findings],
    }


def _stack_report(stack: Stack, layout: Layout | None) -> dict[str, Any]:
    """One stack as it stands in report.json."""
    orientation = stack.orientation
    report = {
        "images": len(stack.images),
        "direction": None if orientation is None else direction_name(orientation),
        "orientation": None if orientation is None else orientation.ravel().tolist(),
        "pixel_spacing_mm": stack.spacing,
        "slice_thickness_mm": stack.images[0].plane.thickness,
    }
    if layout is None:
        return report | dict.fromkeys(LAYOUT_KEYS)
    smallest, largest = steps_between(layout)
    single = len(layout.order) == 1
    values = (
        len(layout.order),
        None if single else layout.usual_step,
        None if single else smallest,
        None if single else largest,
        sum(layout.gaps),
        layout.tilt,
        layout.origins[0].tolist(),
        layout.origins[-1].tolist(),
    )
    return report | dict(zip(LAYOUT_KEYS, values, strict=True))


def _intensity_report(
    intensity: Intensity | None, images: tuple[Image, ...]
) -> dict[str, Any] | None:
    """The intensities as they stand in report.json."""
    if intensity is None:
        return None
    is_colour = any(image.pixels.samples > 1 for image in images)
    return {"unit": "luminance" if is_colour else images[0].instance.unit, **vars(intensity)}


if __name__ == "__main__":
    sys.exit(main())
