"""What is wrong with a series: every finding that needs no pixels. The codes are in the reports."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from dicom_adapter.pipelines.findings import Finding, Severity, counted
from dicom_adapter.pipelines.geometry import (
    Layout,
    Stack,
    has_same_orientation,
    is_orthonormal,
    measure,
    steps_between,
)
from dicom_adapter.pipelines.series import Instance, Series

# Their images are slices of a body, so it is a fault when they do not say where they lie.
TOMOGRAPHIC = ("CT", "MR", "PT", "RTDOSE")


@dataclass(frozen=True)
class Numbers:
    """The InstanceNumbers of a series: the ranges that are missing, and those used twice."""

    first: int | None
    last: int | None
    missing: tuple[tuple[int, int], ...]
    duplicates: tuple[int, ...]
    absent: int
    unusual: int

    @property
    def missing_count(self) -> int:
        """How many numbers are missing in all."""
        return sum(last - first + 1 for first, last in self.missing)


def read_numbers(instances: Iterable[Instance]) -> Numbers:
    """Look the InstanceNumbers over."""
    all_numbers = [instance.instance_number for instance in instances]
    present = Counter(number for number in all_numbers if number is not None)
    ordered = sorted(present)
    return Numbers(
        first=ordered[0] if ordered else None,
        last=ordered[-1] if ordered else None,
        missing=tuple((a + 1, b - 1) for a, b in pairwise(ordered) if b - a > 1),
        duplicates=tuple(number for number in ordered if present[number] > 1),
        absent=sum(number is None for number in all_numbers),
        unusual=sum(present[number] for number in ordered if number <= 0),
    )


def series_findings(series: Series) -> Iterator[Finding]:
    """Findings about the instances as files and as members of one series."""
    instances = series.instances
    if series.unreadable:
        files = counted(series.unreadable, "file")
        yield Finding("unreadable-instances", "error", f"{files} could not be read as DICOM")
    for code, severity, values in _should_agree(instances):
        count = len(set(values))
        if count > 1:
            what = code.removeprefix("mixed-").replace("-", " ")
            yield Finding(code, severity, f"the series holds {count} different {what}")
    repeats = len(instances) - len({each.sop_instance_uid or each.path for each in instances})
    if repeats:
        times = counted(repeats, "instance")
        yield Finding("repeated-instances", "warning", f"{times} with the UID of another one")
    invalid = sorted({keyword for instance in instances for keyword in instance.invalid})
    if invalid:
        listed = ", ".join(invalid)
        yield Finding("invalid-values", "warning", f"values that could not be read: {listed}")
    yield from _content_findings(series)


def _should_agree(
    instances: tuple[Instance, ...],
) -> Iterator[tuple[str, Severity, list[object]]]:
    """What all instances, or all images, of one series should have in common."""
    images = [(each, each.pixels) for each in instances if each.pixels]
    yield "mixed-studies", "error", [each.study_instance_uid for each in instances]
    yield "mixed-series", "error", [each.series_instance_uid for each in instances]
    yield "mixed-modalities", "warning", [each.modality for each in instances]
    yield "mixed-sop-classes", "warning", [each.sop_class_uid for each in instances]
    yield "mixed-transfer-syntaxes", "info", [each.transfer_syntax for each in instances]
    yield "mixed-frames-of-reference", "error", [each.frame_of_reference_uid for each, _ in images]
    yield "mixed-sizes", "warning", [(pixels.rows, pixels.columns) for _, pixels in images]
    yield "mixed-photometric-interpretations", "warning", [each.photometric for _, each in images]
    planes = [plane for each, _ in images for plane in each.planes]
    yield (
        "mixed-pixel-spacings",
        "warning",
        [
            plane.spacing and tuple(round(distance, 4) for distance in plane.spacing)
            for plane in planes
        ],
    )
    yield "mixed-rescales", "info", [(plane.slope, plane.intercept) for plane in planes]


def _content_findings(series: Series) -> Iterator[Finding]:
    """Findings about what the instances hold."""
    without = [each for each in series.instances if not each.pixels]
    if without:
        them = counted(len(without), "instance")
        yield Finding("not-an-image", "info", f"{them} without pixel data")
    truncated = sum(each.pixels.truncated for each in series.instances if each.pixels)
    if truncated:
        them = counted(truncated, "instance")
        yield Finding("truncated-pixel-data", "error", f"{them} with less pixel data than rows")
    localizers = sum("LOCALIZER" in each.image_type for each in series.instances)
    if localizers:
        yield Finding("localizer", "info", f"{counted(localizers, 'localizer image')}")
    images = series.images
    if len(images) == 1:
        yield Finding("single-image", "info", "the series is a single image")
    zero = sum(image.plane.slope_is_zero for image in images)
    if zero:
        them = counted(zero, "image")
        yield Finding("rescale-slope-zero", "warning", f"{them} with RescaleSlope 0, taken as 1")


def number_findings(numbers: Numbers) -> Iterator[Finding]:
    """Findings about the InstanceNumbers."""
    if numbers.missing:
        ranges = _ranges(numbers.missing)
        count = numbers.missing_count
        yield Finding("missing-instance-numbers", "warning", f"{count} missing: {ranges}")
    if numbers.duplicates:
        ranges = _ranges(tuple((number, number) for number in numbers.duplicates))
        yield Finding("duplicate-instance-numbers", "warning", f"used more than once: {ranges}")
    if numbers.absent:
        them = counted(numbers.absent, "instance")
        yield Finding("absent-instance-numbers", "warning", f"{them} without an InstanceNumber")
    if numbers.unusual:
        them = counted(numbers.unusual, "instance")
        yield Finding("unusual-instance-numbers", "info", f"{them} numbered 0 or less")


def stack_findings(series: Series, stacks: tuple[Stack, ...]) -> Iterator[Finding]:
    """Findings about where the images lie, those of several stacks each under its number."""
    orientations = _distinct_orientations(stacks)
    if orientations > 1:
        yield Finding("mixed-orientations", "warning", f"images in {orientations} orientations")
    for number, stack in enumerate(stacks, start=1):
        prefix = f"stack {number}: " if len(stacks) > 1 else ""
        for finding in one_stack_findings(series, stack):
            yield Finding(finding.code, finding.severity, prefix + finding.message)


def one_stack_findings(series: Series, stack: Stack) -> Iterator[Finding]:
    """Findings about how one stack's images lie; an error means that they are no volume."""
    yield from _absence_findings(series, stack)
    orientation = stack.orientation
    if orientation is not None and not is_orthonormal(orientation):
        yield Finding(
            "orientation-not-orthonormal",
            "error",
            "the direction cosines are not of length 1 and at right angles",
        )
    layout = measure(stack)
    if layout:
        yield from _layout_findings(layout)


def _absence_findings(series: Series, stack: Stack) -> Iterator[Finding]:
    """Findings about what the images do not say; the same for each of them."""
    severity: Severity = "error" if series.modality in TOMOGRAPHIC else "info"
    planes = [image.plane for image in stack.images]
    if severity == "info" and not any(plane.position or plane.orientation for plane in planes):
        yield Finding("no-geometry", "info", "the images do not say where they lie, nor need they")
        return
    for code, what, absent in (
        ("absent-position", "ImagePositionPatient", sum(not each.position for each in planes)),
        (
            "absent-orientation",
            "ImageOrientationPatient",
            sum(not each.orientation for each in planes),
        ),
        ("absent-pixel-spacing", "PixelSpacing", sum(not each.spacing for each in planes)),
    ):
        if absent:
            yield Finding(code, severity, f"{counted(absent, 'image')} without a usable {what}")


def _layout_findings(layout: Layout) -> Iterator[Finding]:
    """Findings about the positions."""
    repeats = {len(same) for same in layout.order}
    if repeats != {1}:
        if len(repeats) == 1:
            volumes = repeats.pop()
            message = f"every position is there {volumes} times: {volumes} volumes"
            yield Finding("repeated-positions", "info", message)
        else:
            more = sum(len(same) > 1 for same in layout.order)
            message = f"{counted(more, 'position')} with more than one image"
            yield Finding("duplicate-positions", "error", message)
    if layout.gaps:
        message = f"{counted(sum(layout.gaps), 'slice')} missing in {_places(layout.gaps)}"
        yield Finding("missing-slices", "error", message)
    elif layout.step is None:
        low, high = steps_between(layout)
        message = f"slices lie between {low:.3f} and {high:.3f} mm apart"
        yield Finding("irregular-spacing", "error", message)
    if layout.is_sheared:
        message = f"the stack leans by {layout.tilt:.1f} degrees, as with a tilted gantry"
        yield Finding("gantry-tilt", "warning", message)


def _places(gaps: tuple[int, ...]) -> str:
    """In how many places slices are missing."""
    return counted(sum(gap > 0 for gap in gaps), "place")


def _distinct_orientations(stacks: tuple[Stack, ...]) -> int:
    """How many orientations the stacks have, not counting those that have none."""
    seen: list[Stack] = []
    for stack in stacks:
        if stack.orientation is not None and not any(has_same_orientation(stack, s) for s in seen):
            seen.append(stack)
    return len(seen)


def _ranges(ranges: tuple[tuple[int, int], ...], limit: int = 10) -> str:
    """`3, 7-9, ...`: the first ranges in words."""
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:limit]]
    return ", ".join([*words, "..."] if len(ranges) > limit else words)
