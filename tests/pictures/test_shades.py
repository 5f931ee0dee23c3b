from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, XRayAngiographicImageStorage

from .make import Bytes, Stored, dataset, example, items, picture, write


def row(*values: int, dtype: str = "<i2") -> Stored:
    """A picture of one row."""
    return np.array([values], dtype=dtype)


def shown(path: Path) -> list[int]:
    """The first row of a grey picture."""
    image = picture(path)
    assert image.ndim == 2
    return [int(value) for value in image[0]]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        # PS3.3 C.11.2.1.2.1: 0 up to 40 - 0.5 - 49.5, 255 from 40 - 0.5 + 49.5 on.
        ({"WindowCenter": "40", "WindowWidth": "100"}, [0, 0, 129, 255, 255]),
        (
            {"WindowCenter": "40", "WindowWidth": "100", "VOILUTFunction": "LINEAR_EXACT"},
            [0, 0, 128, 252, 255],
        ),
        (
            {"WindowCenter": "40", "WindowWidth": "100", "VOILUTFunction": "SIGMOID"},
            # 255 / (1 + exp(-4 (x - c) / w)): -10 and 89 are half a width away.
            [0, 30, 128, 224, 255],
        ),
        # An unknown function is taken as the default.
        (
            {"WindowCenter": "40", "WindowWidth": "100", "VOILUTFunction": "OTHER"},
            [0, 0, 129, 255, 255],
        ),
        # The first of several.
        ({"WindowCenter": ["40", "0"], "WindowWidth": ["100", "9"]}, [0, 0, 129, 255, 255]),
        ({"WindowCenter": "40", "WindowWidth": "1"}, [0, 0, 255, 255, 255]),
    ],
)
def test_the_window_is_that_of_the_header(
    tmp_path: Path, window: dict[str, object], expected: list[int]
) -> None:
    """Its function and the first of its values decide what is black and what is white."""
    path = write(tmp_path / "a.dcm", row(-1000, -10, 40, 89, 1000), **window)
    assert shown(path) == expected


def test_the_window_is_in_rescaled_units(tmp_path: Path) -> None:
    """The Modality LUT comes first: stored 1050 is 100 HU with a slope of 2."""
    path = write(
        tmp_path / "a.dcm",
        row(999, 1000, 1050, 1100, 1101),
        RescaleSlope="2",
        RescaleIntercept="-2000",
        WindowCenter="100",
        WindowWidth="200",
        VOILUTFunction="LINEAR_EXACT",
    )
    assert shown(path) == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("name", ["MR_small.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm"])
def test_windows_agree_with_pydicom(name: str) -> None:
    """Real files with a window look as pydicom's own functions make them."""
    path = example(name)
    image = dcmread(path)
    if name == "J2K_pixelrep_mismatch.dcm":
        image.PixelRepresentation = 1
    values = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image)
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    sign = image.PixelRepresentation
    lowest = (-(2 ** (image.BitsStored - 1)) if sign else 0) * slope + intercept
    span = (2**image.BitsStored - 1) * slope
    expected = (np.asarray(values) - lowest) / span * 255
    padding = image.get("PixelPaddingValue")
    seen = image.pixel_array != padding if padding is not None else np.ones(values.shape, bool)
    assert np.abs(picture(path)[seen] - expected[seen]).max() <= 0.51


def test_monochrome1_is_dark_where_values_are_high(tmp_path: Path) -> None:
    """The lowest value is white; padding, whatever it is, is black."""
    attributes = {"WindowCenter": "51", "WindowWidth": "101", "PixelPaddingValue": -500}
    stored = row(-500, 0, 50, 100, 200)
    assert shown(write(tmp_path / "2.dcm", stored, **attributes)) == [0, 0, 126, 254, 255]
    attributes["PhotometricInterpretation"] = "MONOCHROME1"
    attributes["WindowCenter"] = "50.5"
    assert shown(write(tmp_path / "1.dcm", stored, **attributes)) == [0, 255, 128, 0, 0]


def ramp(outliers: int = 3) -> Stored:
    """Ten thousand pixels from 1000 to 1099, a few of which are far away."""
    stored = np.arange(10_000, dtype=np.int16).reshape(100, 100) % 100 + 1000
    stored[0, :outliers] = 30_000
    return stored.astype("<i2")


def test_without_a_window_nearly_all_of_the_image_is_seen(tmp_path: Path) -> None:
    """A few outliers neither darken nor whiten the rest."""
    image = picture(write(tmp_path / "a.dcm", ramp()))
    assert list(image[1, [0, 50, 99]]) == [0, 129, 255]


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": "1050"},
        {"WindowCenter": "1050", "WindowWidth": "0"},
        {"WindowCenter": "1050", "WindowWidth": "-100"},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_a_window_that_is_none_counts_for_nothing(
    tmp_path: Path, window: dict[str, object]
) -> None:
    """Half a window, or one without a width, is as good as none."""
    image = picture(write(tmp_path / "a.dcm", ramp(), **window))
    assert list(image[1, [0, 50, 99]]) == [0, 129, 255]


@pytest.mark.parametrize(
    ("first", "limit"), [(-2000, None), (63536, None), (-2000, -1900), (-1900, -2000)]
)
def test_padding_has_no_part_in_the_window(tmp_path: Path, first: int, limit: int | None) -> None:
    """Not even when it is most of the image, spans a range, or is written as unsigned."""
    stored = ramp(outliers=0)
    stored[2:] = -2000
    if limit is not None:
        stored[60:] = -1900
    image = dataset(stored)
    image.add_new("PixelPaddingValue", "US" if first > 32767 else "SS", first)
    if limit is not None:
        image.add_new("PixelPaddingRangeLimit", "SS", limit)
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    picture_ = picture(tmp_path / "a.dcm")
    assert list(picture_[1, [0, 50, 99]]) == [0, 129, 255]
    assert not picture_[2:].any()


@pytest.mark.parametrize("value", [0, 1000])
def test_an_image_of_one_value_is_black(tmp_path: Path, value: int) -> None:
    """There is nothing to see, and nothing fails."""
    assert not picture(write(tmp_path / "a.dcm", np.full((4, 4), value, "<u2"))).any()


def test_nothing_but_padding_is_black(tmp_path: Path) -> None:
    """There is nothing to see, and nothing fails."""
    path = write(tmp_path / "a.dcm", np.full((4, 4), 7, "<u2"), PixelPaddingValue=7)
    assert not picture(path).any()


def test_few_pixels_that_differ_are_seen(tmp_path: Path) -> None:
    """Segments smaller than the percentiles' share are told from each other on black."""
    stored = np.zeros((100, 100), np.uint8)
    stored[50, 50:52] = 2, 1
    image = picture(write(tmp_path / "a.dcm", stored))
    assert list(image[50, 50:52]) == [255, 128]
    assert image.sum() == 255 + 128


def test_bytes_that_use_their_range_are_shown_as_they_are(tmp_path: Path) -> None:
    """They were made for a screen; others are spread, as counts of nuclear medicine."""
    stored = np.tile(np.arange(20, 220, dtype=np.uint8), (20, 1))
    assert np.array_equal(picture(write(tmp_path / "a.dcm", stored)), stored)
    dark = picture(write(tmp_path / "b.dcm", stored // 10))
    assert (dark.min(), dark.max()) == (0, 255)


def table(first: int, bits: int, *values: int) -> dict[str, object]:
    """An item of a LUT sequence."""
    data = np.array(values, "<u2").tobytes()
    return {"LUTDescriptor": [len(values), first, bits], "LUTData": data}


def test_the_voi_table_goes_before_the_window(tmp_path: Path) -> None:
    """Its first and last values hold beyond its ends (PS3.3 C.11.2.1.1)."""
    path = write(
        tmp_path / "a.dcm",
        row(0, 10, 11, 12, 500, dtype="<u2"),
        VOILUTSequence=items(table(10, 12, 0, 4095, 2048)),
        WindowCenter="1",
        WindowWidth="2",
    )
    assert shown(path) == [0, 0, 255, 128, 128]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
def test_tables_may_be_bytes_of_either_order(tmp_path: Path, syntax: str) -> None:
    """LUTData of VR OW is in the order of the file."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    image = dataset(row(0, 1, 2, dtype=f"{order}u2"))
    image.file_meta.TransferSyntaxUID = UID(syntax)
    image.set_original_encoding(is_implicit_vr=order == "<", is_little_endian=order == "<")
    item = items({"LUTDescriptor": [3, 0, 16]})[0]
    item.add_new("LUTData", "OW", np.array([65535, 32768, 0], f"{order}u2").tobytes())
    image.VOILUTSequence = [item]
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert shown(tmp_path / "a.dcm") == [255, 128, 0]


def test_a_broken_table_leaves_it_to_the_window(tmp_path: Path) -> None:
    """One without data, or a descriptor of two numbers, is as good as none."""
    for name, item in (("a", {"LUTDescriptor": [3, 0, 16]}), ("b", {"LUTDescriptor": [3, 0]})):
        path = write(
            tmp_path / f"{name}.dcm",
            row(0, 1, 2),
            VOILUTSequence=items(item),
            WindowCenter="1.5",
            WindowWidth="3",
        )
        assert shown(path) == [0, 128, 255]


def test_the_modality_table_comes_first(tmp_path: Path) -> None:
    """What it gives goes through the window."""
    path = write(
        tmp_path / "a.dcm",
        row(0, 1, 2, dtype="<u2"),
        ModalityLUTSequence=items(table(0, 16, 1000, 0, 500)),
        WindowCenter="500",
        WindowWidth="1000",
        VOILUTFunction="LINEAR_EXACT",
    )
    assert shown(path) == [255, 0, 128]


def test_the_modality_table_of_angiography_is_for_measuring(tmp_path: Path) -> None:
    """With logarithmic values it leads back to X-ray intensities, which nobody looks at."""
    path = write(
        tmp_path / "a.dcm",
        row(0, 1, 2, dtype="<u2"),
        SOPClassUID=XRayAngiographicImageStorage,
        PixelIntensityRelationship="LOG",
        ModalityLUTSequence=items(table(0, 16, 1000, 0, 500)),
        WindowCenter="1",
        WindowWidth="2",
        VOILUTFunction="LINEAR_EXACT",
    )
    assert shown(path) == [0, 128, 255]


def test_each_frame_has_its_own_window_and_slope(tmp_path: Path) -> None:
    """Functional groups go before the data set: own, then shared (PS3.3 C.7.6.16)."""

    def voi(centre: str) -> dict[str, object]:
        window = {"WindowCenter": centre, "WindowWidth": "10", "VOILUTFunction": "LINEAR_EXACT"}
        return {"FrameVOILUTSequence": items(window)}

    image = dataset(np.full((3, 1, 2), 100, "<u2"))
    image.WindowCenter, image.WindowWidth = "1", "1"
    image.SharedFunctionalGroupsSequence = items(voi("100"))
    doubled = items({"RescaleSlope": "2", "RescaleIntercept": "-100"})
    image.PerFrameFunctionalGroupsSequence = items(
        {}, voi("105"), {"PixelValueTransformationSequence": doubled, **voi("95")}
    )
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    values = [int(picture(tmp_path / "a.dcm", frame=frame)[0, 0]) for frame in (1, 2, 3)]
    assert values == [128, 0, 255]


def test_wide_integers_and_floats_are_shown(tmp_path: Path) -> None:
    """Doses of 32 bits and parametric maps have too many values for a table."""
    wide = write(tmp_path / "a.dcm", np.linspace(0, 4e9, 100).astype("<u4").reshape(10, 10))
    image = dataset(np.zeros((10, 10), "<f4"))
    del image.PixelData
    values = np.linspace(-1, 1, 100).astype("<f4")
    values[0] = np.nan
    image.FloatPixelData = values.tobytes()
    image.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    for path in (wide, tmp_path / "b.dcm"):
        shades = picture(path).ravel()
        assert shades[0] == 0
        assert shades[-1] == 255
        assert np.all(np.diff(shades.astype(int)) >= 0)
        assert 120 < shades[50] < 136


def palette(bits: int, *colours: tuple[int, int, int], first: int = 0) -> dict[str, object]:
    """A palette with entries of so many bits."""
    made: dict[str, object] = {}
    for name, entries in zip(("Red", "Green", "Blue"), zip(*colours, strict=True), strict=True):
        data = np.array(entries, f"<u{bits // 8}").tobytes()
        made[f"{name}PaletteColorLookupTableDescriptor"] = [len(colours), first, bits]
        made[f"{name}PaletteColorLookupTableData"] = data + bytes(len(data) % 2)
    return {"PhotometricInterpretation": "PALETTE COLOR", **made}


def test_a_palette_gives_the_colours(tmp_path: Path) -> None:
    """Values beyond its ends have the colours of its ends."""
    wanted = [[255, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 255]]
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255))
    for bits, scale in ((8, 1), (16, 257), (16, 1)):
        scaled = [(a * scale, b * scale, c * scale) for a, b, c in colours]
        path = write(
            tmp_path / "a.dcm",
            row(0, 2, 3, 4, 258, dtype="<u2"),
            **palette(bits, *scaled, first=2),
        )
        assert picture(path)[0].tolist() == wanted


def test_real_colours_come_out_in_colour() -> None:
    """However they are stored: the test card's bars are red, green and blue from above."""

    def card(name: str) -> Bytes:
        return picture(example(name))

    names = (
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_rle_32bit.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    )
    expected = card("SC_rgb_rle.dcm")
    assert expected[[5, 25, 45, 95], 50].tolist() == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
    ]
    for name in names:
        assert np.abs(card(name)[5::10].astype(int) - expected[5::10]).max() <= 5, name
    ultrasound = card("examples_palette.dcm")
    assert ultrasound.shape == (350, 800, 3)
    # The banner at the top is blue.
    assert ultrasound[20, 400, 2] > ultrasound[20, 400, 0] + 30
