from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from .conftest import SMALL, Bench, codes, message


def put(bench: Bench, name: str) -> Path:
    """Copy one of pydicom's example files into the input."""
    path = bench.input / "1.dcm"
    path.write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    return path


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm"])
def test_what_is_no_image_is_said_to_be_none(bench: Bench, name: str) -> None:
    """A report, a plan or a waveform is no fault: there is only nothing to show."""
    put(bench, name)
    series = bench.report()[0]
    assert "not-an-image" in codes(series)
    assert (series["montage"], series["intensity"], series["images"]) == (None, None, 0)
    assert codes(bench.nifti()[0]) >= {"not-an-image", "no-volume"}


def test_truncated_pixel_data_is_found(bench: Bench) -> None:
    """Pixel data shorter than rows and columns need are told, and not made up."""
    put(bench, "MR_truncated.dcm")
    series = bench.report()[0]
    assert {"truncated-pixel-data", "undecodable-pixel-data"} <= codes(series)
    assert series["montage"] is None
    assert bench.nifti()[0]["volumes"] == []


def test_a_file_cut_short_does_not_hide_the_others(bench: Bench) -> None:
    """One broken image of a series is counted, and the montage shows the rest."""
    path = bench.write()[3]
    path.write_bytes(path.read_bytes()[:-1000])
    series = bench.report()[0]
    assert message(series, "undecodable-pixel-data").startswith("1 of 8 images")
    assert series["montage"]["tiles"] == 7
    assert {"undecodable-pixel-data", "no-volume"} <= codes(bench.nifti()[0])


def test_a_transfer_syntax_without_a_decoder_is_named(bench: Bench) -> None:
    """Pixel data that no decoder here knows are a finding with the transfer syntax's name."""
    put(bench, "JPEG-lossy.dcm")
    assert "JPEG Extended" in message(bench.report()[0], "undecodable-pixel-data")


@pytest.mark.parametrize("size", [0, 100, 132, 200, 400])
def test_a_file_that_is_hardly_there_is_found(bench: Bench, size: int) -> None:
    """A file cut within its header is unreadable or has no pixels, whatever is left of it."""
    paths = bench.write()
    paths[0].write_bytes(paths[0].read_bytes()[:size])
    manifest(bench, paths)
    assert {"unreadable-instances", "mixed-series", "not-an-image"} & codes(bench.report()[0])


def manifest(bench: Bench, paths: list[Path]) -> None:
    """Name the files in a job's manifest, so that they are one series whatever they hold."""
    files = ", ".join(f'{{"file": "{path.relative_to(bench.input)}"}}' for path in paths)
    job = bench.folder / "job.json"
    job.write_text(f'{{"job": {{"id": "j"}}, "inputs": [{{"files": [{files}]}}]}}')
    bench.monkeypatch.setenv("DICOM_ADAPTER_JOB", str(job))


def spoil(image: FileDataset) -> None:
    """Write text where numbers belong, a list where one value does, and a sequence as text."""
    for keyword, vr, value in (
        ("ImagePositionPatient", "LO", "a\\b\\c"),
        ("PixelSpacing", "LO", "1\\x"),
        ("RescaleSlope", "LO", "steep"),
        ("WindowCenter", "LO", "here"),
        ("SliceThickness", "LO", "nan"),
        ("InstanceNumber", "LO", "1.5"),
        ("PixelPaddingValue", "LO", "none"),
        ("SharedFunctionalGroupsSequence", "LO", "text"),
        ("PixelAspectRatio", "LO", "1"),
        ("GridFrameOffsetVector", "LO", "?"),
    ):
        image.add_new(keyword, vr, value)


def test_values_of_the_wrong_kind_are_listed_and_survived(bench: Bench) -> None:
    """Numbers that are no numbers are named by keyword, never by value."""
    for path in bench.write():
        bench.edit(path, spoil)
    series = bench.report()[0]
    assert message(series, "invalid-values") == (
        "values that could not be read: ImagePositionPatient, InstanceNumber, PixelAspectRatio, "
        "PixelPaddingValue, PixelSpacing, RescaleSlope, SliceThickness, WindowCenter"
    )
    assert series["montage"]["tiles"] == 8
    assert "absent-position" in codes(bench.nifti()[0])


def test_a_wild_number_of_frames_does_not_run_away(bench: Bench) -> None:
    """NumberOfFrames beyond what the file can hold is a finding within the usual time."""
    for path in bench.write():
        bench.edit(path, lambda image: setattr(image, "NumberOfFrames", "2000000000"))
    assert {"truncated-pixel-data", "undecodable-pixel-data"} <= codes(bench.report()[0])


def test_float_pixel_data_are_shown_without_what_is_no_number(bench: Bench) -> None:
    """Float Pixel Data are measured as they are; NaN and infinity are left out."""

    def to_float(image: FileDataset) -> None:
        values = image.pixel_array.astype(np.float32) / 1000
        values[0, :3] = np.nan, np.inf, -np.inf
        del image.PixelData, image.RescaleSlope, image.RescaleIntercept
        del image.BitsStored, image.HighBit, image.PixelRepresentation
        image.BitsAllocated = 32
        image.add_new("FloatPixelData", "OF", values.tobytes())

    for path in bench.write():
        bench.edit(path, to_float)
    series = bench.report()[0]
    assert series["findings"] == []
    assert series["intensity"]["values"] == 8 * (48 * 64 - 3)
    assert series["intensity"]["maximum"] < 2
    assert bench.nifti()[0]["volumes"][0]["datatype"] == "float32"


def test_unused_bits_are_not_part_of_the_value(bench: Bench) -> None:
    """Of 12 bits stored in 16 only 12 count, whatever stands in the others."""

    def overlay(image: FileDataset) -> None:
        image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
        image.RescaleIntercept = "0"
        image.PixelData = (image.pixel_array.astype(np.uint16) & 0xFFF | 0x8000).tobytes()

    for path in bench.write():
        bench.edit(path, overlay)
    assert bench.report()[0]["intensity"]["maximum"] < 4096


@pytest.mark.parametrize("pixels", [b"", b"\0" * 6144])
def test_pixels_that_are_all_the_same_are_shown(bench: Bench, pixels: bytes) -> None:
    """An image without contrast, or with empty pixel data, breaks nothing."""
    for path in bench.write(SMALL):
        bench.edit(path, lambda image: setattr(image, "PixelData", pixels))
    series = bench.report()[0]
    assert (series["montage"] is None) == (not pixels)
