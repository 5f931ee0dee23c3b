from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dicom_adapter.phantom import (
    AXIAL,
    CORONAL,
    NODULE_CENTRE,
    SAGITTAL,
    PhantomSeries,
    write_series,
)

from .make import Bytes, Stored, dataset, items, picture, write

Cosines = tuple[float, float, float, float, float, float]

PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL}
# Nothing else than how it is stored may differ: rows x columns pixels of 8 x 6 mm.
ROWS, COLUMNS, DOWN, ACROSS = 40, 64, 8.0, 6.0

# A corner that is told from the others: 1 stands for it.
TOP_LEFT, TOP_RIGHT = (0, 0), (0, -1)
BOTTOM_LEFT, BOTTOM_RIGHT = (-1, 0), (-1, -1)


def phantom(folder: Path, cosines: Cosines, *, transposed: bool = False) -> Bytes:
    """The picture of the phantom's slice through the nodule, stored in that orientation."""
    shape = (COLUMNS, ROWS, (ACROSS, DOWN)) if transposed else (ROWS, COLUMNS, (DOWN, ACROSS))
    series = PhantomSeries(
        slices=1,
        rows=shape[0],
        columns=shape[1],
        pixel_spacing=shape[2],
        orientation=cosines,
        centre=NODULE_CENTRE,
    )
    return picture(write_series(folder, series)[0])


def stored_ways(cosines: Cosines) -> list[tuple[Cosines, bool]]:
    """The eight ways to store a plane, and whether rows and columns are exchanged in each."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    ways = []
    for one, other, transposed in product((1, -1), (1, -1), (False, True)):
        first, second = (column, row) if transposed else (row, column)
        a, b, c = map(float, first * one)
        d, e, f = map(float, second * other)
        ways.append(((a, b, c, d, e, f), transposed))
    return ways


@pytest.mark.parametrize("plane", PLANES)
def test_however_a_plane_is_stored_its_picture_is_the_same(tmp_path: Path, plane: str) -> None:
    """All flips and rotations by 90 degrees of the stored image give one picture."""
    usual = phantom(tmp_path / "usual", PLANES[plane])
    assert usual.shape == (53, 64)
    for number, (cosines, transposed) in enumerate(stored_ways(PLANES[plane])):
        shown = phantom(tmp_path / str(number), cosines, transposed=transposed)
        assert shown.shape == usual.shape
        # The noise is another one; any turned picture differs ten times as much.
        assert np.abs(shown.astype(float) - usual).mean() < 4
        assert np.abs(shown[:, ::-1].astype(float) - usual).mean() > 8


def test_the_usual_pictures_are_the_radiological_ones(tmp_path: Path) -> None:
    """The right lung's nodule is on the left, the spine below or on the right, the liver below."""

    def shown(cosines: Cosines, centre: tuple[float, float, float]) -> Bytes:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        series = PhantomSeries(
            slices=1,
            rows=96,
            columns=96,
            pixel_spacing=(4.5, 4.5),
            orientation=cosines,
            centre=centre,
        )
        return picture(write_series(folder, series)[0])

    def at(image: Bytes, right: float, down: float) -> int:
        """The brightness so many mm from the middle."""
        return int(image[round(47.5 + down / 4.5), round(47.5 + right / 4.5)])

    axial = shown(AXIAL, (0.0, 0.0, 30.0))
    assert at(axial, -85, -20) > 250
    assert at(axial, 85, -20) < 150
    assert at(axial, 0, 70) > 200 > at(axial, 0, -78)
    coronal = shown(CORONAL, (0.0, -20.0, 30.0))
    assert at(coronal, -85, 0) > 250 > at(coronal, 85, 0)
    assert at(coronal, -60, 150) > 130 > at(coronal, -60, -70)
    sagittal = shown(SAGITTAL, (0.0, 0.0, 30.0))
    assert at(sagittal, 78 - 14, 0) > 200 > at(sagittal, -78, 0)


def corner(path: Path, stored: Stored, **attributes: object) -> tuple[int, int]:
    """Where the first stored pixel, the only bright one, is in the picture."""
    shown = picture(write(path, stored, WindowCenter="0.5", WindowWidth="1", **attributes))
    bright = {(y, x) for y in (0, -1) for x in (0, -1) if shown[y, x] == 255}
    assert len(bright) == 1
    return bright.pop()


@pytest.fixture
def marked() -> Stored:
    """Three by three pixels, the first of them bright."""
    stored = np.zeros((3, 3), dtype=np.uint8)
    stored[0, 0] = 1
    return stored


@pytest.mark.parametrize(
    ("cosines", "place"),
    [
        ((0.9, 0.3, 0.3, -0.3, 0.95, 0.1), TOP_LEFT),
        ((-0.9, -0.3, -0.3, -0.3, 0.95, 0.1), TOP_RIGHT),
        ((0.0, 0.9397, 0.342, 0.0, 0.342, -0.9397), TOP_LEFT),
        ((0.0, -0.9397, 0.342, 0.0, -0.342, -0.9397), TOP_RIGHT),
        ((0.98, 0.0, 0.2, 0.2, 0.0, -0.98), TOP_LEFT),
        ((0.98, 0.0, 0.2, -0.2, 0.0, 0.98), BOTTOM_LEFT),
        ((0.2, 0.0, -0.98, -0.98, 0.0, -0.2), TOP_RIGHT),
    ],
)
def test_oblique_planes_are_shown_like_the_nearest(
    tmp_path: Path, marked: Stored, cosines: tuple[float, ...], place: tuple[int, int]
) -> None:
    """A tilted plane is turned by right angles only, to the plane that it is closest to."""
    assert corner(tmp_path / "a.dcm", marked, ImageOrientationPatient=list(cosines)) == place


@pytest.mark.parametrize(
    ("letters", "place"),
    [
        (["L", "F"], TOP_LEFT),
        (["R", "F"], TOP_RIGHT),
        (["R", "H"], BOTTOM_RIGHT),
        (["F", "L"], TOP_LEFT),
        (["H", "R"], BOTTOM_RIGHT),
        (["P", "F"], TOP_LEFT),
        (["A", "F"], TOP_RIGHT),
        (["L", "P"], TOP_LEFT),
        (["L", "A"], BOTTOM_LEFT),
        (["RA", "F"], TOP_RIGHT),
        (["AR", "FL"], TOP_RIGHT),
        # The first letter counts for more than the second: this is nearly axial.
        (["RF", "PF"], TOP_RIGHT),
        # What says nothing, or cannot be, leaves the picture as it is stored.
        (["", ""], TOP_LEFT),
        (["R", "L"], TOP_LEFT),
        (["R", "R"], TOP_LEFT),
        (["R", "X"], TOP_LEFT),
        (["R"], TOP_LEFT),
        (["LE", "D"], TOP_LEFT),
    ],
)
def test_projections_are_turned_by_their_patient_orientation(
    tmp_path: Path, marked: Stored, letters: list[str], place: tuple[int, int]
) -> None:
    """Left on the right, posterior on the right, feet below."""
    assert corner(tmp_path / "a.dcm", marked, PatientOrientation=letters) == place


@pytest.mark.parametrize(
    ("letters", "laterality", "place"),
    [
        (["P", "L"], "R", TOP_LEFT),  # right CC, as it is usually stored
        (["A", "R"], "L", TOP_LEFT),
        (["P", "F"], "R", TOP_LEFT),  # right MLO
        (["A", "FR"], "L", TOP_LEFT),
        (["A", "L"], "R", TOP_RIGHT),
        (["P", "R"], "L", TOP_RIGHT),
        (["A", "H"], "R", BOTTOM_RIGHT),
        (["P", "L"], "", TOP_LEFT),
        (["A", "L"], "B", TOP_LEFT),
    ],
)
def test_mammograms_stand_back_to_back(
    tmp_path: Path,
    marked: Stored,
    letters: list[str],
    laterality: str,
    place: tuple[int, int],
) -> None:
    """The chest wall of the right breast is on the right; head, or the outer half, is above."""
    attributes = {"Modality": "MG", "PatientOrientation": letters, "ImageLaterality": laterality}
    assert corner(tmp_path / "a.dcm", marked, **attributes) == place


def test_cosines_go_before_letters(tmp_path: Path, marked: Stored) -> None:
    """Where both are there, ImageOrientationPatient decides."""
    attributes = {"PatientOrientation": ["L", "P"], "ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}
    assert corner(tmp_path / "a.dcm", marked, **attributes) == TOP_RIGHT


@pytest.mark.parametrize(
    "cosines",
    [[0, 0, 0, 0, 0, 0], [-1, 0, 0, -1, 0, 0], [-1, 0, 0, 0, 3, 0], [-1, 0, 0]],
)
def test_impossible_cosines_leave_the_picture_as_stored(
    tmp_path: Path, marked: Stored, cosines: list[float]
) -> None:
    """Directions of no length, of another number or in parallel say nothing."""
    assert corner(tmp_path / "a.dcm", marked, ImageOrientationPatient=cosines) == TOP_LEFT


def test_animals_are_shown_as_stored(tmp_path: Path, marked: Stored) -> None:
    """The radiological convention is that of people."""
    attributes = {
        "ImageOrientationPatient": [-1, 0, 0, 0, 1, 0],
        "AnatomicalOrientationType": "QUADRUPED",
    }
    assert corner(tmp_path / "a.dcm", marked, **attributes) == TOP_LEFT


def test_each_frame_has_its_own_orientation_and_spacing(tmp_path: Path, marked: Stored) -> None:
    """The frame's own functional group goes before the shared one, that before the data set."""

    def plane(*cosines: int) -> dict[str, object]:
        return {"PlaneOrientationSequence": items({"ImageOrientationPatient": list(cosines)})}

    image = dataset(np.stack([marked] * 3))
    image.WindowCenter, image.WindowWidth = "0.5", "1"
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    spacing = {"PixelMeasuresSequence": items({"PixelSpacing": [2, 1]})}
    image.SharedFunctionalGroupsSequence = items({**plane(-1, 0, 0, 0, 1, 0), **spacing})
    image.PerFrameFunctionalGroupsSequence = items({}, plane(1, 0, 0, 0, -1, 0), {})
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    first, second = (picture(tmp_path / "a.dcm", frame=frame) for frame in (1, 2))
    assert first.shape == second.shape == (6, 3)
    assert first[TOP_RIGHT] == second[BOTTOM_LEFT] == 255
    assert first[BOTTOM_LEFT] == second[TOP_RIGHT] == 0


def test_frames_may_have_letters_of_their_own(tmp_path: Path, marked: Stored) -> None:
    """PatientOrientationInFrameSequence has those of projections with many frames."""
    own = items({"PatientOrientation": ["R", "F"]})
    groups = items({"PatientOrientationInFrameSequence": own})
    shared = {"PatientOrientation": ["L", "F"], "SharedFunctionalGroupsSequence": groups}
    assert corner(tmp_path / "a.dcm", marked, **shared) == TOP_RIGHT


def test_slices_of_nuclear_medicine_have_it_with_their_detector(
    tmp_path: Path, marked: Stored
) -> None:
    """There ImageOrientationPatient stands in DetectorInformationSequence."""
    detectors = items({"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]})
    place = corner(tmp_path / "a.dcm", marked, DetectorInformationSequence=detectors)
    assert place == BOTTOM_RIGHT


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({}, (3, 3)),
        ({"PixelSpacing": [0.5, 0.5]}, (3, 3)),
        ({"PixelSpacing": [4, 1]}, (12, 3)),
        ({"PixelSpacing": [1, 4]}, (3, 12)),
        ({"ImagerPixelSpacing": [2, 1]}, (6, 3)),
        ({"NominalScannedPixelSpacing": [1, 2]}, (3, 6)),
        ({"ImagePlanePixelSpacing": [1, 2]}, (3, 6)),
        ({"PixelAspectRatio": [2, 1]}, (6, 3)),
        ({"PixelSpacing": [1, 1], "PixelAspectRatio": [2, 1]}, (3, 3)),
        ({"PixelSpacing": [0, 1], "ImagerPixelSpacing": [2, 1]}, (6, 3)),
        ({"PixelSpacing": [1, 1000]}, (3, 3)),
        ({"PixelSpacing": None, "PixelAspectRatio": [1, 2]}, (3, 6)),
        # Rows lead to the feet: it is turned, and so is its spacing.
        ({"PixelSpacing": [4, 1], "PatientOrientation": ["F", "L"]}, (3, 12)),
    ],
)
def test_pixels_come_out_square(
    tmp_path: Path, marked: Stored, attributes: dict[str, object], shape: tuple[int, int]
) -> None:
    """A picture is as high and wide as the patient; nothing of the finer side is lost."""
    assert picture(write(tmp_path / "a.dcm", marked, **attributes)).shape == shape


def test_the_longer_side_has_a_bound(tmp_path: Path) -> None:
    """Large images are made smaller, by the size that they have on the patient."""
    path = write(tmp_path / "a.dcm", np.zeros((200, 100), np.uint16), PixelSpacing=[1, 4])
    assert picture(path, longest=50).shape == (25, 50)
    assert picture(path).shape == (200, 400)
