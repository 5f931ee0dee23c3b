"""Turns each image series of the job into NIfTI volumes that lie where the patient lay.

    python -m dicom_adapter.pipelines.nifti INPUT OUTPUT

The series are those of the job's manifest (DICOM_ADAPTER_JOB) or, without one, all that INPUT
holds. OUTPUT receives `nifti.json` and for each volume `series-01.nii.gz`, or
`series-01-volume-1.nii.gz` and so on when the series gives several, as it does when it is of
several stacks: orientations, sizes, spacings or frames of reference. Steps: read, convert.

The axes are columns, rows, slices (ascending along the normal) and, when each position is there as
often as every other, volumes. The affine comes from ImageOrientationPatient, PixelSpacing and the
step between the positions themselves, never from SliceThickness except for a single slice; it
leads to mm in RAS+ (x grows to the patient's right, y to the front, z to the head), where DICOM has
LPS. sform and qform hold it, with code 1 (scanner). A stack that leans, as with a tilted gantry,
has a sheared affine, which a qform cannot hold: then only the sform is set and the qform's code is
0, so that a reader either gets it right or sees that it cannot.

Values are those stored, with RescaleSlope and RescaleIntercept as scl_slope and scl_inter; or
32-bit float, rescaled, when the slices' rescales differ or a Modality LUT is a table.

A geometry that is not certain is not written: missing slices, uneven spacing, several images at
one position that cannot be told apart, broken or absent positions. The findings say so, and the
exit code is 0, as for a series that holds no volume at all.

nifti.json is `{"series": [...]}`, in the order of the job, each with `series` (from 1), `modality`,
`study_instance_uid`, `series_instance_uid`; `volumes`: `file`, `shape`, `voxel_size_mm`, `affine`
(4 x 4), `is_sheared`, `datatype`, `volumes_by` (what orders the fourth axis, or null);
and `findings`: `code`, `severity` (info, warning, error), `message`. The codes are those of
series_report that are about files, values and positions, and

- no-volume: the series gave no volume;
- colour-image, segmentation: images that are no volume of intensities;
- absent-slice-thickness: a single slice that does not say how thick it is;
- ambiguous-volumes: several images at each position, in no order that holds for all positions.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from dicom_adapter.pipelines.checks import one_stack_findings, series_findings, stack_findings
from dicom_adapter.pipelines.command import Progress, run, say
from dicom_adapter.pipelines.findings import Finding, counted
from dicom_adapter.pipelines.geometry import Layout, Stack, Vector, measure, split
from dicom_adapter.pipelines.manifest import Job
from dicom_adapter.pipelines.pixels import PixelError, rescaled, stored_frames
from dicom_adapter.pipelines.series import Image, Series, read_series
from dicom_adapter.pipelines.volumes import order_volumes

SCANNER = 1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """A volume to be written: which image goes where (slices x volumes), and where it all lies."""

    images: tuple[tuple[Image, ...], ...]
    affine: Vector
    is_sheared: bool
    volumes_by: str | None

    @property
    def first(self) -> Image:
        """The first image, which stands for all in what they have in common."""
        return self.images[0][0]

    @property
    def rescale(self) -> tuple[float, float] | None:
        """Slope and intercept if all images share them and need nothing else, else None."""
        images = [image for slice_ in self.images for image in slice_]
        rescales = {(image.plane.slope, image.plane.intercept) for image in images}
        tables = any(image.pixels.modality_lut for image in images)
        kinds = {
            (image.pixels.bits_allocated, image.pixels.signed, image.pixels.kind)
            for image in images
        }
        return rescales.pop() if len(rescales) == len(kinds) == 1 and not tables else None


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return run("Turns each image series into NIfTI volumes.", work, arguments)


def work(job: Job, output: Path, progress: Progress) -> None:
    """Write the volumes of the job's series and nifti.json into the output folder."""
    done = progress.counter("read", sum(map(len, job.series)))
    read = [read_series(number, files, done) for number, files in enumerate(job.series, start=1)]
    progress.report("read", 1, 1)
    done = progress.counter("convert", sum(len(series.images) for series in read))
    reports = [convert(series, output, done) for series in read]
    text = json.dumps({"series": reports}, indent=2, allow_nan=False)
    (output / "nifti.json").write_text(text + "\n", encoding="utf-8")
    progress.report("convert", 1, 1)


def convert(series: Series, output: Path, done: Callable[[], None]) -> dict[str, Any]:
    """Write the series' volumes, and return what nifti.json says of it."""
    findings = list(series_findings(series))
    series = _without_repeats(series)
    stacks = split(series)
    findings += stack_findings(series, stacks)
    plans: list[Plan] = []
    for stack in stacks:
        plan = make_plan(series, stack)
        if isinstance(plan, Plan):
            plans.append(plan)
        elif plan is not None:
            findings.append(plan)
    volumes = []
    for number, plan in enumerate(plans, start=1):
        suffix = f"-volume-{number}" if len(plans) > 1 else ""
        name = f"series-{series.number:02d}{suffix}.nii.gz"
        try:
            volumes.append(_write(plan, output / name, done))
        except PixelError:
            message = f"{counted(len(plan.images), 'slice')}, of which one could not be decoded"
            findings.append(Finding("undecodable-pixel-data", "error", message))
    if not volumes:
        findings.append(Finding("no-volume", "info", "the series gave no volume"))
    codes = ", ".join(sorted({finding.code for finding in findings})) or "nothing found"
    say(f"{series.title}: {counted(len(volumes), 'volume')}: {codes}")
    first = series.instances[0] if series.instances else None
    return {
        "series": series.number,
        "modality": series.modality or None,
        "study_instance_uid": first.study_instance_uid if first else None,
        "series_instance_uid": first.series_instance_uid if first else None,
        "volumes": volumes,
        "findings": [finding.as_json() for finding in findings],
    }


def make_plan(series: Series, stack: Stack) -> Plan | Finding | None:
    """Plan the stack's volume; a finding, or None if it was found already, when it is none."""
    first = stack.images[0]
    if any(image.instance.sop_class_uid in SEGMENTATIONS for image in stack.images):
        return Finding("segmentation", "info", "a segmentation is not a volume of intensities")
    if any(
        image.pixels.samples > 1 or image.pixels.photometric == "PALETTE COLOR"
        for image in stack.images
    ):
        return Finding("colour-image", "info", "colour images are not a volume of intensities")
    layout = measure(stack)
    wrong = any(finding.severity == "error" for finding in one_stack_findings(series, stack))
    if wrong or layout is None or layout.step is None or stack.spacing is None:
        return None
    step = layout.step
    if len(layout.order) == 1:
        if not first.plane.thickness or first.plane.thickness <= 0:
            return Finding("absent-slice-thickness", "error", "a single slice without thickness")
        step = layout.normal * first.plane.thickness
    order = order_volumes(stack.images, layout.order)
    if order is None:
        message = "several images at each position, in no order that holds for all positions"
        return Finding("ambiguous-volumes", "error", message)
    affine = affine_of(stack, layout, step)
    images = tuple(tuple(stack.images[index] for index in same) for same in order.slices)
    return Plan(images, affine, layout.is_sheared, order.keyword)


def affine_of(stack: Stack, layout: Layout, step: Vector) -> Vector:
    """The 4 x 4 matrix from (column, row, slice) indices to mm in RAS+ (PS3.3 C.7.6.2.1.1)."""
    if stack.orientation is None or stack.spacing is None:
        raise ValueError("a stack without orientation or spacing has no affine")
    directions = stack.orientation / np.linalg.norm(stack.orientation, axis=1, keepdims=True)
    between_rows, between_columns = stack.spacing
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * between_columns
    affine[:3, 1] = directions[1] * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = layout.origins[0]
    result: Vector = LPS_TO_RAS @ affine
    return result


def _without_repeats(series: Series) -> Series:
    """The series with each SOPInstanceUID once; series_findings has told of the others."""
    first = {each.sop_instance_uid or str(each.path): each for each in reversed(series.instances)}
    kept = {id(each) for each in first.values()}
    return replace(series, instances=tuple(each for each in series.instances if id(each) in kept))


def _write(plan: Plan, path: Path, done: Callable[[], None]) -> dict[str, Any]:
    """Write the volume, and return what nifti.json says of it."""
    data = _fill(plan, done)
    if len(plan.images[0]) == 1:
        data = data[..., 0]
    image: Any = nibabel.Nifti1Image(data, plan.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.set_sform(plan.affine, code=SCANNER)
    if plan.is_sheared:
        image.set_qform(None, code=0)
    else:
        image.set_qform(plan.affine, code=SCANNER)
    if plan.rescale and data.dtype.kind != "f":
        image.header.set_slope_inter(*plan.rescale)
    nibabel.save(image, path)
    return {
        "file": path.name,
        "shape": list(data.shape),
        "voxel_size_mm": np.linalg.norm(plan.affine[:3, :3], axis=0).tolist(),
        "affine": plan.affine.tolist(),
        "is_sheared": plan.is_sheared,
        "datatype": str(data.dtype),
        "volumes_by": plan.volumes_by,
    }


def _fill(plan: Plan, done: Callable[[], None]) -> Array:
    """The voxels: columns x rows x slices x volumes, in the order in which they are written."""
    pixels = plan.first.pixels
    shape = (pixels.columns, pixels.rows, len(plan.images), len(plan.images[0]))
    data: Array | None = None
    highest = 0
    for place, image, stored in _frames(plan):
        # The first frame tells the type: the decoder knows best how it stores its values.
        if data is None:
            data = np.empty(shape, _datatype(plan, stored), order="F")
        values = rescaled(stored, image) if data.dtype.kind == "f" else stored
        data[:, :, place[0], place[1]] = values.T
        highest = max(highest, int(values.max())) if data.dtype.kind == "u" else 0
        done()
    if data is None:
        raise PixelError("there are no frames")
    if data.dtype in (np.uint16, np.uint32) and highest <= np.iinfo(data.dtype).max // 2:
        # Many tools know the signed types only.
        data = data.view(f"i{data.dtype.itemsize}")
    return data


def _datatype(plan: Plan, stored: Array) -> npt.DTypeLike:
    """The type of the voxels: that of the stored values if the rescale can stay in the header."""
    if stored.dtype.kind in "iu" and plan.rescale:
        return stored.dtype.newbyteorder("=")
    return np.float32


def _frames(plan: Plan) -> Iterator[tuple[tuple[int, int], Image, Array]]:
    """Each image with its place in the volume, instance by instance, each file read once."""
    places: dict[Path, list[tuple[tuple[int, int], Image]]] = {}
    for k, same in enumerate(plan.images):
        for t, image in enumerate(same):
            places.setdefault(image.instance.path, []).append(((k, t), image))
    for wanted in places.values():
        wanted.sort(key=lambda entry: entry[1].plane.frame)
        frames = [image.plane.frame for _, image in wanted]
        decoded = stored_frames(wanted[0][1].instance, frames)
        for (place, image), (stored, _) in zip(wanted, decoded, strict=True):
            yield place, image, stored


if __name__ == "__main__":
    sys.exit(main())
