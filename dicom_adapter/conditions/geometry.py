"""How slices lie in the patient, and how far apart they are."""

import math
from collections.abc import Sequence
from itertools import pairwise

from dicom_adapter.conditions.frames import Frame
from dicom_adapter.model import Plane

Vector = tuple[float, float, float]

# An axis counts as a slice's own up to some 37 degrees: heads are scanned tilted.
_NEAR_AXIS = 0.8
# Two slices are parallel up to some 2 degrees, which is more than what is rounded.
_PARALLEL = 0.999
# Millimetres: closer than this, two slices lie in one place.
_SAME_PLACE = 0.01
_AXES = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)
_COSINES = 6
_COORDINATES = 3


def orientation_of(frame: Frame) -> Plane | None:
    """Return how a slice lies; None where it does not say so."""
    normal = normal_of(frame)
    if normal is None:
        return None
    # The axes go to the left, to the back and to the head (PS3.3 C.7.6.2.1.1).
    sizes = [abs(component) for component in normal]
    largest = max(sizes)
    return _AXES[sizes.index(largest)] if largest >= _NEAR_AXIS else Plane.OBLIQUE


def normal_of(frame: Frame) -> Vector | None:
    """Return the direction that a slice is seen along; None where it does not say so."""
    cosines = frame.numbers("ImageOrientationPatient")
    if cosines is None or len(cosines) != _COSINES:
        return None
    a, b, c, d, e, f = cosines
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    # As well: what is no number.
    if not length > 0 or not math.isfinite(length):
        return None
    return normal[0] / length, normal[1] / length, normal[2] / length


def gaps_of(frames: Sequence[Frame]) -> list[float] | str:
    """Return the distances of neighbouring slices in mm, or what is there instead of them."""
    first = normal_of(frames[0]) if frames else None
    if first is None:
        return "absent"
    places = []
    for frame in frames:
        normal, position = normal_of(frame), frame.numbers("ImagePositionPatient")
        if normal is None or position is None or len(position) != _COORDINATES:
            return "absent"
        if abs(_along(normal, first)) < _PARALLEL:
            return "of slices that are not parallel"
        places.append(_along((position[0], position[1], position[2]), first))
    if not all(map(math.isfinite, places)):
        return "unreadable"
    places.sort()
    gaps = [after - before for before, after in pairwise(places)]
    real = [gap for gap in gaps if gap > _SAME_PLACE]
    return real or "of a single slice"


def _along(vector: Vector, direction: Vector) -> float:
    return math.fsum(a * b for a, b in zip(vector, direction, strict=True))
