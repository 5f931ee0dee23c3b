"""Which way round and how wide an image is shown (PS3.3 C.7.6.1.1.1, C.7.6.2.1.1, C.7.6.3.1.7)."""

import numpy as np
import numpy.typing as npt
from PIL.Image import Transpose

from dicom_adapter.pictures.header import Header

Vector = npt.NDArray[np.float64]

# Where the letters of PatientOrientation point to, as directions of the patient: LPS.
LETTERS = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "H": (0.0, 0.0, 1.0),
    "F": (0.0, 0.0, -1.0),
}
# To the right and down in a picture of a sagittal, a coronal and an axial plane: who looks at it
# faces the patient or stands at the feet, and sees a patient from the side look to the left.
USUAL = (("P", "F"), ("L", "F"), ("L", "P"))
# Direction cosines that are further from length 1 and a right angle than this are none.
SKEW = 0.1
# Letters give directions of 45 degrees at most to where they should be.
SKEW_OF_LETTERS = 0.8

# The spacing's keyword and functional group, in the order in which they are trusted.
SPACINGS = (
    ("PixelSpacing", "PixelMeasuresSequence"),
    ("ImagerPixelSpacing", ""),
    ("NominalScannedPixelSpacing", ""),
    ("ImagePlanePixelSpacing", ""),
    ("PixelAspectRatio", ""),
)
# Pixels that are longer than this times their width are a mistake in the header.
LONGEST_PIXEL = 20.0


def pixel_shape(header: Header) -> tuple[float, float]:
    """Return how high and how wide a pixel is, in a unit that means nothing; (1, 1) if unknown."""
    for keyword, macro in SPACINGS:
        spacing = header.numbers(keyword, macro, count=2)
        if spacing and min(spacing) > 0 and max(spacing) <= LONGEST_PIXEL * min(spacing):
            return spacing[0], spacing[1]
    return 1.0, 1.0


def turns(header: Header) -> tuple[Transpose, ...]:
    """Return what to do with the stored image, in this order, to see it the usual way round.

    Axial planes have the patient's right on the left of the picture and anterior at the top,
    coronal ones right on the left and the head at the top, sagittal ones anterior on the left and
    the head at the top; oblique planes are shown like the nearest of them. Mammograms have the
    chest wall on the side of the breast's name. Where the header does not say how the image lies,
    or the patient is no human, it stays as it is stored: nothing is to be done.
    """
    directions = _directions(header)
    if directions is None or header.text("AnatomicalOrientationType").upper() == "QUADRUPED":
        return ()
    row, column = directions
    wanted = _wanted(header, row, column)
    if wanted is None:
        return ()
    right, down = (np.array(LETTERS[letter]) for letter in wanted)
    steps = []
    if abs(row @ right) + abs(column @ down) < abs(row @ down) + abs(column @ right):
        steps.append(Transpose.TRANSPOSE)
        row, column = column, row
    if row @ right < 0:
        steps.append(Transpose.FLIP_LEFT_RIGHT)
    if column @ down < 0:
        steps.append(Transpose.FLIP_TOP_BOTTOM)
    return tuple(steps)


def _directions(header: Header) -> tuple[Vector, Vector] | None:
    """Where the rows and the columns lead to: unit vectors, LPS; None when nothing says it."""
    cosines = header.numbers("ImageOrientationPatient", "PlaneOrientationSequence", count=6)
    detector = header.item("DetectorInformationSequence")
    if not cosines and detector is not None:
        # Slices of nuclear medicine have it there (PS3.3 C.8.4.11).
        cosines = Header(detector).numbers("ImageOrientationPatient", count=6)
    if cosines:
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        is_unit = all(abs(np.linalg.norm(way) - 1) <= SKEW for way in (row, column))
        return (row, column) if is_unit and abs(row @ column) <= SKEW else None
    letters = header.text("PatientOrientation", "PatientOrientationInFrameSequence").split("\\")
    ways = [_way(each) for each in letters]
    if len(ways) != 2:  # noqa: PLR2004 - of the rows, and of the columns
        return None
    across, downwards = ways
    if across is None or downwards is None or abs(across @ downwards) > SKEW_OF_LETTERS:
        return None
    return across, downwards


def _way(letters: str) -> Vector | None:
    """The direction of letters such as A, or FL: feet first of all, but also to the left."""
    if not letters or any(letter not in LETTERS for letter in letters):
        return None
    way = sum(np.array(LETTERS[each]) * 0.5**place for place, each in enumerate(letters))
    length = float(np.linalg.norm(way))
    return np.asarray(way / length, dtype=np.float64) if length > 0 else None


def _wanted(header: Header, row: Vector, column: Vector) -> tuple[str, str] | None:
    """The letters of where the right and the lower edge of the picture shall lie."""
    if header.text("Modality") == "MG":
        return _wanted_of_breast(header, row, column)
    return USUAL[int(np.argmax(np.abs(np.cross(row, column))))]


def _wanted_of_breast(header: Header, row: Vector, column: Vector) -> tuple[str, str] | None:
    """Back to back: the right breast has its chest wall on the right; the outer half is above."""
    laterality = header.text("ImageLaterality") or header.text(
        "FrameLaterality", "FrameAnatomySequence"
    )
    if laterality not in ("R", "L"):
        return None
    is_upright = max(abs(row[2]), abs(column[2])) > max(abs(row[0]), abs(column[0]))
    right, inner = ("P", "L") if laterality == "R" else ("A", "R")
    return right, "F" if is_upright else inner
