import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence

from dicom_adapter.phantom import CORONAL, NODULE_CENTRE, PhantomSeries
from dicom_adapter.pipelines.montage import pick, through_window
from dicom_adapter.pipelines.planes import Window

from .conftest import SMALL, Bench

ONE = PhantomSeries(slices=1, rows=64, columns=64, pixel_spacing=(6.0, 6.0))
DCMTK = pytest.mark.skipif(
    shutil.which("dcmdump") is None or shutil.which("dcm2pnm") is None,
    reason="DCMTK's dcmdump and dcm2pnm are not installed",
)


def montage(bench: Bench) -> npt.NDArray[np.uint8]:
    """The picture of the bench's first series."""
    assert bench.report()[0]["montage"]["image"] == "series-01-montage.png"
    return np.asarray(Image.open(bench.output / "series-01-montage.png"))


def test_a_single_image_fills_the_montage(bench: Bench) -> None:
    """One image is one large tile."""
    bench.write(ONE)
    assert montage(bench).shape == (644, 644)


def test_a_tile_is_as_wide_and_high_as_the_patient(bench: Bench) -> None:
    """Pixels that are twice as high as wide make a tile that is twice as high."""
    bench.write(replace(ONE, pixel_spacing=(6.0, 3.0)))
    assert montage(bench).shape == (644, 324)


def test_pixel_aspect_ratio_stands_in_for_the_spacing(bench: Bench) -> None:
    """Without PixelSpacing the PixelAspectRatio, vertical before horizontal, gives the shape."""

    def change(image: FileDataset) -> None:
        del image.PixelSpacing
        image.PixelAspectRatio = ["1", "2"]

    bench.edit(bench.write(ONE)[0], change)
    assert montage(bench).shape == (324, 644)


def test_the_montage_is_the_right_way_round(bench: Bench) -> None:
    """The nodule of the right lung is on the viewer's left, in an axial and a coronal montage."""
    for name, series in (("1", ONE), ("2", replace(ONE, orientation=CORONAL))):
        bench.write(replace(series, centre=(0.0, NODULE_CENTRE[1], NODULE_CENTRE[2])), name)
    bench.report()
    for number in (1, 2):
        picture = np.asarray(Image.open(bench.output / f"series-0{number}-montage.png"))
        # The nodule is 85 mm off the middle of a tile of 384 mm, 640 pixels; axially 20 mm before.
        column = 2 + 320 - round(85 / 384 * 640)
        assert picture[322, column] == 255
        assert picture[322, 644 - column] < 100


def test_monochrome1_is_inverted(bench: Bench) -> None:
    """MONOCHROME1 shows its low values bright."""
    bench.write(ONE)
    normal = montage(bench).astype(int)
    path = next(bench.input.rglob("*.dcm"))
    bench.edit(path, lambda image: setattr(image, "PhotometricInterpretation", "MONOCHROME1"))
    inverted = montage(bench).astype(int)
    assert normal[20:100, 20:100].max() == 0
    assert inverted[20:100, 20:100].min() == 255


def test_the_window_of_the_header_is_used(bench: Bench) -> None:
    """What lies below the window is black, above it white; without one the percentiles decide."""

    def narrow(image: FileDataset) -> None:
        image.WindowCenter, image.WindowWidth = ["-900", "40"], ["100", "400"]

    bench.edit(bench.write(ONE)[0], narrow)
    # Body at 20 HU is above a window that ends at -850.
    assert montage(bench)[322, 60:90].min() == 255


def test_a_voi_lut_is_used_when_there_is_no_window(bench: Bench) -> None:
    """A VOI LUT table shows the image as the table has it."""

    def table(image: FileDataset) -> None:
        del image.WindowCenter, image.WindowWidth
        lut = FileDataset("", {})
        lut.add_new("LUTDescriptor", "SS", [3, 0, 16])
        lut.add_new("LUTData", "US", [0, 65535, 32896])
        image.VOILUTSequence = Sequence([lut])

    bench.edit(bench.write(ONE)[0], table)
    # All HU above 2 take the last entry of the table, all below 0 the first.
    picture = montage(bench)
    assert np.median(picture[322, 60:90]) == 128
    assert picture[20:100, 20:100].max() == 0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 0, 128, 255]),
        ("LINEAR_EXACT", [0, 0, 128, 255]),
        ("SIGMOID", [4, 30, 128, 251]),
    ],
)
def test_window_functions(function: str, expected: list[int]) -> None:
    """The three VOI functions map the middle of the window to mid grey and its ends as they say."""
    values = np.array([0, 50, 100, 200], dtype=np.float32)
    shown = through_window(values, Window(100.0, 100.0, function), (0.0, 1.0))
    assert np.abs(shown.astype(int) - expected).max() <= 2


def test_an_empty_range_does_not_divide_by_zero() -> None:
    """Values that are all the same are black, not a fault."""
    values = np.full((2, 2), 7, dtype=np.float32)
    assert through_window(values, None, (7.0, 7.0)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("count", [1, 48, 49, 100, 2000])
def test_tiles_are_picked_evenly_with_both_ends(count: int) -> None:
    """Never more than 48 images become tiles, the first and the last among them."""
    picked = pick(count)
    assert len(picked) == min(count, 48) == len(set(picked))
    assert (picked[0], picked[-1]) == (0, count - 1)
    assert np.ptp(np.diff(picked)) <= 1 if count > 1 else True


def test_colour_stays_colour(bench: Bench) -> None:
    """An RGB image keeps its colours in the picture and in the Secondary Capture."""
    shutil.copy(str(get_testdata_file("SC_rgb_rle.dcm")), bench.input)
    picture = montage(bench)
    assert picture[20, 322].tolist() == [255, 0, 0]
    capture = dcmread(bench.output / "series-01-montage.dcm")
    assert capture.PhotometricInterpretation == "RGB"
    assert np.array_equal(capture.pixel_array, picture)


def test_palette_colour_is_looked_up(bench: Bench) -> None:
    """A PALETTE COLOR image is shown in its colours."""
    shutil.copy(str(get_testdata_file("examples_palette.dcm")), bench.input)
    picture = montage(bench).astype(int)
    assert picture.ndim == 3
    assert np.abs(picture[..., 0] - picture[..., 2]).max() > 100


def test_the_secondary_capture_belongs_to_the_study(bench: Bench) -> None:
    """Patient and study are those of the images, byte by byte; series and instance are new."""
    name = "Müller^Jürgen=山田^太郎"

    def rename(image: FileDataset) -> None:
        image.PatientName = name

    paths = bench.write()
    for path in paths:
        bench.edit(path, rename)
    bench.report()
    source, capture = dcmread(paths[0]), dcmread(bench.output / "series-01-montage.dcm")
    for keyword in (
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        assert capture[keyword].value == source[keyword].value
    assert capture.PatientName == name
    assert capture.SeriesInstanceUID != source.SeriesInstanceUID
    assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"


def test_a_wrongly_declared_character_set_does_not_change_the_name(bench: Bench) -> None:
    """A name in other bytes than its character set has is copied as it is."""
    path = bench.write(ONE)[0]
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"Phantom^Chest", b"Ph\xe4ntom^Chest"))
    bench.report()
    assert b"Ph\xe4ntom^Chest" in (bench.output / "series-01-montage.dcm").read_bytes()


@pytest.mark.parametrize("declared", [b"ISO_NONE 7", b"\\ISO_IR 87"])
def test_any_character_set_is_copied(bench: Bench, declared: bytes) -> None:
    """Even a character set that nobody knows is handed on, and the name with it."""
    path = bench.write(ONE)[0]
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", declared))
    bench.report()
    capture = (bench.output / "series-01-montage.dcm").read_bytes()
    assert declared in capture
    assert b"Phantom^Chest" in capture


def test_another_attempt_makes_the_same_secondary_capture(bench: Bench) -> None:
    """The same inputs give the same file, so that a retry stores nothing twice."""
    bench.write()
    bench.report()
    first = (bench.output / "series-01-montage.dcm").read_bytes()
    bench.report()
    assert (bench.output / "series-01-montage.dcm").read_bytes() == first


def test_a_series_without_a_study_gets_no_secondary_capture(bench: Bench) -> None:
    """An image that belongs to no study would be refused by every archive, so it is not made."""
    bench.edit(bench.write(ONE)[0], lambda image: delattr(image, "StudyInstanceUID"))
    assert bench.report()[0]["montage"]["dicom"] is None


@DCMTK
def test_dcmtk_reads_the_secondary_capture(bench: Bench, tmp_path: Path) -> None:
    """DCMTK parses and draws the Secondary Capture, pixel for pixel, and complains of nothing."""
    bench.write(SMALL)
    picture = montage(bench)
    path = bench.output / "series-01-montage.dcm"
    dump = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
    assert dump.stderr == ""
    assert "=SecondaryCaptureImageStorage" in dump.stdout
    drawn = tmp_path / "drawn.pgm"
    command = ["dcm2pnm", "--write-raw-pnm", str(path), str(drawn)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert np.array_equal(np.asarray(Image.open(drawn)), picture)
