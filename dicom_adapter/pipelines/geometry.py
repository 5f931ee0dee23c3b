"""Stacks of parallel planes and how evenly they lie (PS3.3 C.7.6.2.1.1); mm, LPS throughout."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dicom_adapter.pipelines.series import Image, Series

Vector = npt.NDArray[np.float64]

# Direction cosines are written with some six digits; what differs by more is another direction.
COSINE_TOLERANCE = 1e-3
# Positions are often rounded to a tenth of a millimetre, so one may be off by that against the
# line through the first and the last, which are rounded too; and a whole stack may drift sideways
# by no more than this share of its length (a tilt of 0.1 degrees).
POSITION_TOLERANCE = 0.101
STEP_TOLERANCE = 0.02
DRIFT_TOLERANCE = 0.0018


@dataclass(frozen=True)
class Stack:
    """Images of one size, spacing, orientation and frame of reference, in the series' order."""

    images: tuple[Image, ...]

    @property
    def orientation(self) -> Vector | None:
        """The direction cosines, rows of a (2, 3) array, None when absent."""
        cosines = self.images[0].plane.orientation
        return np.array(cosines, dtype=np.float64).reshape(2, 3) if cosines else None

    @property
    def spacing(self) -> tuple[float, float] | None:
        """The distance between rows and that between columns."""
        return self.images[0].plane.spacing

    @property
    def has_positions(self) -> bool:
        """Whether each image says where it lies."""
        return all(image.plane.position for image in self.images)


@dataclass(frozen=True)
class Layout:
    """How a stack's images lie.

    `order` holds indices of the stack's images, one tuple for each distinct position along the
    normal; `origins` are those positions (n x 3). `step` leads from one position to the next if
    they lie evenly, else it is None, and `gaps` counts the slices that are missing after each
    position if the uneven steps are multiples of the usual one, else it is empty.
    """

    order: tuple[tuple[int, ...], ...]
    origins: Vector
    normal: Vector
    step: Vector | None
    usual_step: float
    gaps: tuple[int, ...]
    tilt: float

    @property
    def is_sheared(self) -> bool:
        """Whether the step leaves the normal, as with a tilted gantry."""
        if self.step is None:
            return False
        length = float(np.dot(self.step, self.normal))
        drift = np.linalg.norm(self.step - self.normal * length) * (len(self.order) - 1)
        whole = length * (len(self.order) - 1)
        return bool(drift > max(POSITION_TOLERANCE, DRIFT_TOLERANCE * whole))


def split(series: Series) -> tuple[Stack, ...]:
    """Split the series' images into stacks, in the order in which each stack begins."""
    groups: list[list[Image]] = []
    for image in series.images:
        for group in groups:
            if _belong_together(group[0], image):
                group.append(image)
                break
        else:
            groups.append([image])
    return tuple(Stack(tuple(group)) for group in groups)


def is_orthonormal(orientation: Vector) -> bool:
    """Whether the two directions are of length 1 and at right angles."""
    return bool(np.allclose(orientation @ orientation.T, np.eye(2), atol=COSINE_TOLERANCE))


def measure(stack: Stack) -> Layout | None:
    """Measure how the stack's images lie; None when they do not say it."""
    orientation = stack.orientation
    if orientation is None or not is_orthonormal(orientation) or not stack.has_positions:
        return None
    normal = np.cross(orientation[0], orientation[1])
    normal /= np.linalg.norm(normal)
    positions = np.array([image.plane.position for image in stack.images], dtype=np.float64)
    order = _by_location(positions @ normal)
    origins = np.array([positions[same[0]] for same in order])
    step = None if _is_scattered(positions, order) else _even_step(origins)
    along = np.diff(origins @ normal)
    usual = _usual(along) if along.size else 0.0
    return Layout(
        order=order,
        origins=origins,
        normal=normal,
        step=step,
        usual_step=usual if step is None else float(np.linalg.norm(step)),
        gaps=_gaps(along, usual) if step is None else (),
        tilt=_angle(origins[-1] - origins[0], normal),
    )


def has_same_orientation(one: Stack, other: Stack) -> bool:
    """Whether two stacks' images point the same way."""
    first, second = one.images[0].plane, other.images[0].plane
    return _close(first.orientation, second.orientation, COSINE_TOLERANCE)


def direction_name(orientation: Vector) -> str:
    """axial, coronal or sagittal, with `oblique` before it unless it is exactly that."""
    normal = np.abs(np.cross(orientation[0], orientation[1]))
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    return name if normal.max() > 1 - COSINE_TOLERANCE else f"oblique {name}"


def letter(direction: Vector) -> str:
    """The letter of the patient's side that the direction points to most (PS3.3 C.7.6.1.1.1)."""
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "HF")[axis][0 if direction[axis] > 0 else 1]


def _belong_together(one: Image, other: Image) -> bool:
    """Whether two images are of one stack."""
    same = (
        one.pixels.rows == other.pixels.rows
        and one.pixels.columns == other.pixels.columns
        and one.instance.frame_of_reference_uid == other.instance.frame_of_reference_uid
    )
    return (
        same
        and _close(one.plane.orientation, other.plane.orientation, COSINE_TOLERANCE)
        and _close(one.plane.spacing, other.plane.spacing, COSINE_TOLERANCE)
    )


def _close(one: tuple[float, ...] | None, other: tuple[float, ...] | None, limit: float) -> bool:
    """Whether both are absent or all of their numbers differ by no more than the limit."""
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= limit for a, b in zip(one, other, strict=True))


def _by_location(locations: Vector) -> tuple[tuple[int, ...], ...]:
    """The indices sorted by location, those at one location together and in their own order."""
    order = np.argsort(locations, kind="stable")
    extent = float(np.ptp(locations))
    # Rounding of the projection, not of the positions: a micro-CT's steps are small.
    tolerance = min(0.01, extent / max(1, len(locations)) / 10)
    groups: list[list[int]] = []
    for index in map(int, order):
        if groups and locations[index] - locations[groups[-1][0]] <= tolerance:
            groups[-1].append(index)
        else:
            groups.append([index])
    return tuple(tuple(sorted(group)) for group in groups)


def _is_scattered(positions: Vector, order: tuple[tuple[int, ...], ...]) -> bool:
    """Whether images at one location along the normal lie side by side, not upon each other."""
    return any(
        bool(np.any(np.abs(positions[list(same)] - positions[same[0]]) > POSITION_TOLERANCE))
        for same in order
        if len(same) > 1
    )


def _even_step(origins: Vector) -> Vector | None:
    """The step if all positions lie evenly on one line, else None; zero for a single position."""
    count = len(origins)
    if count == 1:
        return np.zeros(3)
    step: Vector = (origins[-1] - origins[0]) / (count - 1)
    length = float(np.linalg.norm(step))
    even = origins[0] + np.arange(count)[:, None] * step
    limit = min(max(POSITION_TOLERANCE, STEP_TOLERANCE * length), length / 4)
    return step if float(np.abs(origins - even).max()) <= limit else None


def _usual(along: Vector) -> float:
    """The distance that most of these are close to, the smaller one of two as common."""
    limit = np.minimum(np.maximum(POSITION_TOLERANCE, STEP_TOLERANCE * along), along / 4)
    ordered = np.sort(along)
    close = np.searchsorted(ordered, along + limit, side="right")
    close -= np.searchsorted(ordered, along - limit, side="left")
    return float(np.median(along[np.abs(along - along[close == close.max()].min()) <= limit]))


def _gaps(along: Vector, usual: float) -> tuple[int, ...]:
    """How many slices are missing after each position, () when no whole number of them is."""
    if not along.size or usual <= 0:
        return ()
    multiples = along / usual
    whole = np.rint(multiples)
    limit = min(0.25, max(0.1, POSITION_TOLERANCE / usual))
    if np.any(np.abs(multiples - whole) > limit) or whole.min() < 1 or whole.max() == 1:
        return ()
    return tuple(int(steps) - 1 for steps in whole)


def _angle(direction: Vector, normal: Vector) -> float:
    """The angle between the two in degrees, 0 when there is no direction."""
    length = float(np.linalg.norm(direction))
    if length == 0:
        return 0.0
    return float(np.degrees(np.arccos(min(1.0, float(np.dot(direction, normal)) / length))))


def steps_between(layout: Layout) -> tuple[float, float]:
    """The smallest and the largest distance between neighbouring positions, 0 for a single one."""
    distances = [float(np.linalg.norm(b - a)) for a, b in pairwise(layout.origins)]
    return (min(distances), max(distances)) if distances else (0.0, 0.0)
