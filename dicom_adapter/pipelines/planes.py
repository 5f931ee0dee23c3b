"""Where each frame of an instance lies and how its stored values read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from dicom_adapter.pipelines.header import Header

# What tells the volumes of one series apart, in the order in which it is looked for: header
# attributes, and for enhanced images the functional group that holds them (PS3.3 C.7.6.16).
VOLUME_KEYS = (
    ("", "TemporalPositionIdentifier"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("", "EchoTime"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("", "EchoNumbers"),
    ("", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("", "ImageType"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("", "InversionTime"),
    ("", "FlipAngle"),
    ("", "TriggerTime"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("", "FrameReferenceTime"),
    ("", "AcquisitionNumber"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("", "AcquisitionTime"),
)


@dataclass(frozen=True)
class Window:
    """A VOI window in rescaled units (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: str


@dataclass(frozen=True)
class Plane:
    """One frame, counted from 0: position and spacing in mm (LPS), None where the header is silent.

    `spacing` is that between rows, then between columns, as in PixelSpacing.
    """

    frame: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    slope_is_zero: bool
    window: Window | None
    volume_keys: tuple[tuple[str, tuple[float, str]], ...]


def read_planes(header: Header, frames: int) -> tuple[Plane, ...]:
    """Read all frames' planes; what a frame has for itself goes before what all frames share."""
    shared = header.item("SharedFunctionalGroupsSequence")
    own = header.items("PerFrameFunctionalGroupsSequence")
    offsets = _dose_offsets(header, frames)
    planes = []
    for frame in range(frames):
        groups = [group for group in (*own[frame : frame + 1], shared) if group]
        is_flat = frames == 1 and not groups
        places = header if is_flat or offsets else None
        plane = _plane(_Sources(header, groups, places), frame)
        planes.append(_moved(plane, offsets[frame]) if offsets else plane)
    return tuple(planes)


@dataclass(frozen=True)
class _Sources:
    """Where a frame's values may stand: its functional groups, or the data set itself.

    `places` is None for the frames of a multi-frame image without functional groups: the one
    ImagePositionPatient that it may have cannot be that of all of its frames.
    """

    header: Header
    groups: list[Header]
    places: Header | None

    def macro(self, sequence: str) -> Iterator[Header]:
        """The functional group's item, if there is one."""
        for group in self.groups:
            item = group.item(sequence)
            if item:
                yield item
                return

    def numbers(self, sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """Numbers that say where the frame lies."""
        for source in (*self.macro(sequence), *filter(None, [self.places])):
            numbers = source.numbers(keyword, count)
            if numbers:
                return numbers
        return None

    def anywhere(self, sequence: str) -> Header:
        """The functional group, or the data set when there is no such group."""
        return next(self.macro(sequence), self.header)


def _plane(sources: _Sources, frame: int) -> Plane:
    """One frame's plane."""
    position = sources.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    spacing = sources.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing is None:
        spacing = sources.header.numbers("PixelSpacing", 2)
    measures = sources.anywhere("PixelMeasuresSequence")
    slope, intercept = _rescale(sources)
    return Plane(
        frame=frame,
        position=(position[0], position[1], position[2]) if position else None,
        orientation=sources.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        spacing=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        thickness=measures.number("SliceThickness"),
        slope=slope or 1.0,
        intercept=intercept,
        slope_is_zero=slope == 0,
        window=_window(sources.anywhere("FrameVOILUTSequence")),
        volume_keys=tuple(_volume_keys(sources)),
    )


def _rescale(sources: _Sources) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 when there are none (PS3.3 C.11.1, C.8.8.3 for the dose)."""
    rescale = sources.anywhere("PixelValueTransformationSequence")
    slope = rescale.number("RescaleSlope")
    if slope is None:
        slope = sources.header.number("DoseGridScaling")
    return 1.0 if slope is None else slope, rescale.number("RescaleIntercept") or 0.0


def _window(voi: Header) -> Window | None:
    """The first window, None when there is none that shows anything."""
    centre, width = voi.number("WindowCenter"), voi.number("WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    return Window(centre, width, voi.text("VOILUTFunction") or "LINEAR")


def _volume_keys(sources: _Sources) -> Iterator[tuple[str, tuple[float, str]]]:
    """The attributes that may tell volumes apart, those that are there, as sortable values."""
    for sequence, keyword in VOLUME_KEYS:
        items = sources.macro(sequence) if sequence else iter([sources.header])
        for item in items:
            text = item.text(keyword)
            if text:
                try:
                    yield keyword, (float(text), "")
                except ValueError:
                    yield keyword, (0.0, text)


def _dose_offsets(header: Header, frames: int) -> list[float]:
    """How far along the normal each frame of a dose grid lies from the first (PS3.3 C.8.8.3.2)."""
    offsets = header.numbers("GridFrameOffsetVector") if frames > 1 else None
    if not offsets or len(offsets) != frames or any(a == b for a, b in pairwise(offsets)):
        return []
    # The vector may also hold z itself: in both cases the first frame is where the image is.
    return [offset - offsets[0] for offset in offsets]


def _moved(plane: Plane, offset: float) -> Plane:
    """The plane that far along its normal."""
    if plane.position is None or plane.orientation is None:
        return plane
    a, b = plane.orientation[:3], plane.orientation[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    x, y, z = (start + offset * part for start, part in zip(plane.position, normal, strict=True))
    return replace(plane, position=(x, y, z))
