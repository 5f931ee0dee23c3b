import tracemalloc
import warnings
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_adapter.errors import InvalidArgumentError, NoPictureError
from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.pictures.header import TAGS
from dicom_adapter.pictures.picture import choose, montage, render

from .make import PATIENT, Bytes, dataset, encapsulated, example, picture, pixels, write


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_one_image_looks_the_same_in_each_transfer_syntax(name: str) -> None:
    """However it is encoded or compressed without loss."""
    assert np.array_equal(picture(example(name)), picture(example("MR_small.dcm")))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("CT_small.dcm", (128, 128)),
        ("image_dfl.dcm", (512, 512)),
        ("liver_1frame.dcm", (512, 512)),
        ("JPEG2000.dcm", (1024, 256)),
        ("examples_overlay.dcm", (300, 484)),
        ("examples_rgb_color.dcm", (240, 320, 3)),
        ("examples_ybr_color.dcm", (240, 320, 3)),
        ("examples_jpeg2k.dcm", (480, 640, 3)),
        ("rtdose_rle.dcm", (10, 10)),
        ("SC_rgb_small_odd_jpeg.dcm", (3, 3, 3)),
    ],
)
def test_real_files_have_a_picture(name: str, shape: tuple[int, ...]) -> None:
    """Grey ones are grey, colour ones in colour, and in each of them there is something to see."""
    shown = picture(example(name))
    assert shown.shape == shape
    assert np.ptp(shown) > 200 or name == "SC_rgb_small_odd_jpeg.dcm"


def test_the_middle_frame_is_shown_unless_one_is_named(tmp_path: Path) -> None:
    """Frames are counted from 1."""
    frames = np.arange(1, 6, dtype="<u2").reshape(5, 1, 1).repeat(2, axis=2)
    path = write(tmp_path / "a.dcm", frames, WindowCenter="128", WindowWidth="256")
    assert [int(picture(path, frame=frame)[0, 0]) for frame in (1, 2, 5)] == [1, 2, 5]
    assert int(picture(path)[0, 0]) == 3


@pytest.mark.parametrize("frame", [-1, 0, 6])
def test_a_frame_that_is_not_there_is_named(tmp_path: Path, frame: int) -> None:
    """The error says which ones are."""
    path = write(tmp_path / "a.dcm", np.zeros((5, 2, 2), np.uint8))
    with pytest.raises(InvalidArgumentError, match=r"^frame: .* 1 to 5$"):
        render(path, frame=frame)
    alone = write(tmp_path / "b.dcm", np.zeros((2, 2), np.uint8))
    with pytest.raises(InvalidArgumentError, match="frame 1 only"):
        render(alone, frame=2)


def test_only_one_frame_is_decoded(tmp_path: Path) -> None:
    """Broken frames beside it are not even looked at, and a long file needs no more memory."""
    with BytesIO() as file:
        Image.fromarray(np.full((8, 8), 200, np.uint8)).save(file, "JPEG")
        good = file.getvalue()
    image = dataset(np.zeros((3, 8, 8), np.uint8))
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.WindowCenter, image.WindowWidth = "128", "256"
    image.PixelData = encapsulated(b"\xff\xd8broken", good, b"\xff\xd8broken")
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert int(picture(tmp_path / "a.dcm", frame=2)[4, 4]) == 200
    with pytest.raises(NoPictureError):
        render(tmp_path / "a.dcm", frame=1)
    long = write(tmp_path / "b.dcm", np.zeros((64, 512, 512), "<u2"))
    render(long)
    tracemalloc.start()
    render(long)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A frame is half a megabyte, the file 32.
    assert peak < 24 * 1024**2


def test_a_picture_holds_nothing_of_the_header(tmp_path: Path) -> None:
    """No text chunk, and nothing that says who the patient is is even read."""
    path = write(tmp_path / "a.dcm", np.zeros((64, 64), np.uint8))
    for png in (render(path), montage([path])):
        assert PATIENT.encode() not in png
        with Image.open(BytesIO(png)) as image:
            assert not image.info
    assert not {"PatientName", "PatientID"} & {keyword_for_tag(tag) for tag in TAGS}


@pytest.mark.parametrize("longest", [-1, 0, 15, 4097])
def test_the_size_has_bounds(tmp_path: Path, longest: int) -> None:
    """The error says which."""
    path = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8))
    expected = pytest.raises(InvalidArgumentError, match=r"^longest: .*from 16 to 4096$")
    with expected:
        render(path, longest=longest)
    with expected:
        montage([path], longest=longest)


@pytest.fixture
def own_filters() -> Iterator[None]:
    """What the product does to the filters of warnings ends with the test."""
    with warnings.catch_warnings():
        yield


@pytest.mark.usefixtures("own_filters")
def test_nothing_is_printed_and_no_filter_is_added_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What pydicom warns of, it quotes; in these tests, warnings are errors."""
    path = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8), PixelAspectRatio=[1, 2])
    assert picture(path).shape == (4, 8)
    content = path.read_bytes()
    assert content.count(b"IS\x04\x001\\2 ") == 1
    # No integer string, though it can be read as one.
    path.write_bytes(content.replace(b"IS\x04\x001\\2 ", b"IS\x04\x001.\\2"))
    assert picture(path).shape == (4, 8)
    filters = len(warnings.filters)
    for _ in range(3):
        render(path)
    assert len(warnings.filters) == filters
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [
        (1, 25, [0]),
        (3, 25, [0, 1, 2]),
        (9, 5, [0, 2, 4, 6, 8]),
        (10, 3, [0, 4, 9]),
        (7, 1, [3]),
    ],
)
def test_tiles_are_evenly_chosen(count: int, most: int, chosen: list[int]) -> None:
    """With the first and the last one."""
    assert choose(count, most) == chosen


def test_many_are_chosen_evenly_and_never_twice() -> None:
    """No step is longer than the others by more than one."""
    for count in range(26, 500):
        chosen = choose(count, 25)
        assert (len(chosen), chosen[0], chosen[-1]) == (25, 0, count - 1)
        steps = [b - a for a, b in pairwise(chosen)]
        assert max(steps) - min(steps) <= 1


def grey_levels(folder: Path, count: int) -> list[Path]:
    """Images of one grey level each: 10 times their number."""
    return [
        write(
            folder / f"{number}.dcm",
            np.full((8, 8), 10 * number, "<u2"),
            WindowCenter="128",
            WindowWidth="256",
        )
        for number in range(1, count + 1)
    ]


def tile(sheet: Bytes, row: int, column: int, side: int) -> Bytes:
    """One tile of a montage with tiles of that size."""
    top, left = (2 + place * (side + 2) for place in (row, column))
    return sheet[top : top + side, left : left + side]


def test_a_montage_shows_the_selection_in_order(tmp_path: Path) -> None:
    """Row by row, each tile with its number at the lower left."""
    sheet = pixels(montage(grey_levels(tmp_path, 5), longest=200))
    side = 64
    assert sheet.shape == (2 * (side + 2) + 2, 3 * (side + 2) + 2, 3)
    for number in range(1, 6):
        each = tile(sheet, *divmod(number - 1, 3), side)
        assert np.all(each[: side // 2] == 10 * number)
        label = each[-16:, :16]
        assert label.max() > 200
        assert label.min() == 0
        assert np.all(each[-16:, side // 2 :] == 10 * number)
    assert not tile(sheet, 1, 2, side).any()
    assert not sheet[:2].any()


def test_numbers_tell_the_place_in_the_selection(tmp_path: Path) -> None:
    """Of nine, five are shown; the second tile is the third instance and says so."""
    paths = grey_levels(tmp_path, 9)
    sheet = pixels(montage(paths, longest=392, tiles=5, columns=5))
    assert [int(tile(sheet, 0, place, 76)[4, 4, 0]) for place in range(5)] == [10, 30, 50, 70, 90]
    third = pixels(montage([paths[2]] * 3, longest=3 * 78 + 2, columns=3))
    assert np.array_equal(tile(sheet, 0, 1, 76), tile(third, 0, 2, 76))
    assert not np.array_equal(tile(third, 0, 0, 76), tile(third, 0, 2, 76))


def test_columns_may_be_given(tmp_path: Path) -> None:
    """A single column is a strip."""
    paths = grey_levels(tmp_path, 4)
    assert pixels(montage(paths, columns=1, longest=402)).shape == (402, 102, 3)
    assert pixels(montage(paths, columns=4, longest=402)).shape == (102, 402, 3)
    assert pixels(montage(paths, columns=9, longest=402)).shape == (102, 402, 3)
    with pytest.raises(InvalidArgumentError, match=r"^columns: "):
        montage(paths, columns=-1)
    with pytest.raises(InvalidArgumentError, match=r"^tiles: "):
        montage(paths, tiles=0)
    with pytest.raises(InvalidArgumentError, match=r"^longest: .* need 74"):
        montage(paths, columns=1, longest=60)


def test_an_instance_without_a_picture_has_a_tile_too(tmp_path: Path) -> None:
    """A report, a broken file and one that is gone leave the others as they are."""
    paths = grey_levels(tmp_path, 2)
    paths[1:1] = [example("test-SR.dcm"), example("MR_truncated.dcm"), tmp_path / "gone.dcm"]
    sheet = pixels(montage(paths, columns=5, longest=502))
    assert int(tile(sheet, 0, 0, 98)[4, 4, 0]) == 10
    assert int(tile(sheet, 0, 4, 98)[4, 4, 0]) == 20
    for place in (1, 2, 3):
        words = tile(sheet, 0, place, 98)
        assert not words[:30].any()
        assert words[40:60].max() > 200


def test_a_montage_of_nothing_is_refused(tmp_path: Path) -> None:
    """No instance, or none with a picture."""
    with pytest.raises(InvalidArgumentError, match=r"^paths: "):
        montage([])
    with pytest.raises(NoPictureError, match="choose images"):
        montage([example("test-SR.dcm"), tmp_path / "gone.dcm"])


def test_tiles_keep_their_shape(tmp_path: Path) -> None:
    """A wide image lies in the middle of its square, small ones are enlarged to it."""
    series = PhantomSeries(slices=1, rows=16, columns=32, pixel_spacing=(12.0, 12.0))
    sheet = pixels(montage(write_series(tmp_path, series), longest=132))
    each = tile(sheet, 0, 0, 128)
    assert not each[:32].any()
    assert each[32:96].any(axis=(1, 2)).all()
    assert not each[97:, 32:].any()


def test_a_deflated_file_is_read_once_and_as_it_is(tmp_path: Path) -> None:
    """Its picture is that of the file that was not deflated."""
    image = dcmread(example("CT_small.dcm"))
    expected = picture(example("CT_small.dcm"))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(picture(tmp_path / "a.dcm"), expected)
