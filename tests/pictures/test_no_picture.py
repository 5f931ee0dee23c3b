import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from dicom_adapter.errors import NoPictureError, NotFoundError, UnavailableError
from dicom_adapter.pictures import frame
from dicom_adapter.pictures.codestream import stated_size
from dicom_adapter.pictures.picture import render

from .make import PATIENT, Stored, dataset, encapsulated, example, write

ONE = np.zeros((8, 8), np.uint8)


def refusal(path: Path) -> str:
    """Why there is no picture; it names the file, and nobody."""
    with pytest.raises(NoPictureError) as caught:
        render(path)
    message = str(caught.value)
    assert message.startswith(f"{path.name}: ")
    assert PATIENT not in message
    assert str(path.parent) not in message
    # Nothing of a library's words is behind it either.
    assert caught.value.__suppress_context__
    return message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test-SR.dcm", "Comprehensive SR Storage"),
        ("rtplan.dcm", "RT Plan Storage"),
        ("waveform_ecg.dcm", "12-lead ECG Waveform Storage"),
    ],
)
def test_what_is_no_image_is_named(name: str, kind: str) -> None:
    """Reports, plans and waveforms hold nothing to draw."""
    message = refusal(example(name))
    assert f"no pixel data ({kind})" in message
    assert "choose" in message


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    """Whatever it is."""
    for name, content in (("empty", b""), ("text", b"hello" * 99), ("zeros", bytes(999))):
        path = tmp_path / name
        path.write_bytes(content)
        assert "no DICOM file" in refusal(path)


def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    """Its folder is not told."""
    with pytest.raises(NotFoundError, match=r"^gone\.dcm: is not stored any more"):
        render(tmp_path / "gone.dcm")


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    """A folder in its place stands for a failing disk."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnavailableError, match=r"^folder: cannot be read \(IsADirectoryError"):
        render(tmp_path / "folder")


def test_a_shortage_of_memory_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the instance."""

    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(frame, "iter_pixels", short)
    with pytest.raises(UnavailableError, match="not enough memory"):
        render(write(tmp_path / "a.dcm", ONE))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "image_dfl.dcm",
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_damaged_pixels_are_told(tmp_path: Path, name: str, share: float) -> None:
    """A file that ends too early has no picture, or one of what is there; never a traceback."""
    data = example(name).read_bytes()
    start = data.find(b"\xe0\x7f\x10\x00") if name != "image_dfl.dcm" else 1000
    path = tmp_path / "a.dcm"
    path.write_bytes(data[: start + 20 + int((len(data) - start) * share)])
    assert re.search("damaged|no pixel data", refusal(path))


def test_random_damage_is_never_a_traceback(tmp_path: Path) -> None:
    """Whatever bytes are changed, the answer is a picture or one of our errors."""
    generator = np.random.default_rng(7)
    names = ("CT_small.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_rle.dcm", "examples_palette.dcm")
    for name in names:
        data = np.fromfile(example(name), np.uint8)
        for _ in range(60):
            broken = data.copy()
            # Most of them in the header, where they do the most.
            places = generator.integers(132, min(4000, data.size), 12)
            broken[places] = generator.integers(0, 256, 12)
            path = tmp_path / "a.dcm"
            path.write_bytes(broken.tobytes())
            with suppress(NoPictureError):
                assert render(path).startswith(b"\x89PNG")


@pytest.mark.parametrize("uid", [HEVCMP51, MPEG2MPML, UID("1.2.3.4")])
def test_transfer_syntaxes_without_a_decoder_are_named(tmp_path: Path, uid: UID) -> None:
    """With the cure; one that is not of the standard is not repeated."""
    image = dataset(ONE)
    image.file_meta.TransferSyntaxUID = uid
    image.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    image.PixelData = encapsulated(b"frame")
    image["PixelData"].is_undefined_length = True
    image.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True)
    message = refusal(tmp_path / "a.dcm")
    assert (
        f"no decoder for its transfer syntax ({'an unknown one' if '.3.4' in uid else uid.name})"
        in message
    )
    assert "Explicit VR Little Endian" in message


def test_a_frame_that_no_decoder_takes_is_not_called_damaged_alone(tmp_path: Path) -> None:
    """It may be of a kind that none of our libraries knows."""
    image = dcmread(example("JPGExtended.dcm"))
    whole = get_frame(image.PixelData, 0, number_of_frames=1)
    # Differential, as only hierarchical ones are (ISO/IEC 10918-1 table B.1).
    image.PixelData = encapsulated(whole.replace(b"\xff\xc1", b"\xff\xc5"))
    image["PixelData"].is_undefined_length = True
    image.save_as(tmp_path / "a.dcm")
    message = refusal(tmp_path / "a.dcm")
    assert "JPEG Extended (Process 2 and 4)" in message
    assert "uncompressed" in message


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 65535, "Columns": 65535}, r"65535 x 65535 x 1 is larger than the 256 MiB"),
        ({"Rows": 16384, "Columns": 16385}, "larger than the 256 MiB"),
        ({"Rows": 0}, "damaged"),
        ({"Rows": 9}, "damaged"),
        ({"BitsAllocated": 7}, "damaged"),
        ({"SamplesPerPixel": 2}, "damaged"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "damaged"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "damaged"),
        ({"NumberOfFrames": 2**31 - 1}, "damaged"),
    ],
)
def test_headers_that_lie_are_refused(
    tmp_path: Path, attributes: dict[str, object], words: str
) -> None:
    """Before memory is taken for what they promise."""
    assert re.search(words, refusal(write(tmp_path / "a.dcm", ONE, **attributes)))


@pytest.mark.parametrize(
    ("kind", "uid"), [("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)]
)
def test_a_compressed_frame_of_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, uid: UID
) -> None:
    """Before a decoder makes room for what the frame says, whatever the header says."""
    decoded = []

    def counted(file: BinaryIO, indices: list[int]) -> Iterator[Stored]:
        decoded.append(indices)
        return iter_pixels(file, indices=indices)

    monkeypatch.setattr(frame, "iter_pixels", counted)
    image = dataset(ONE)
    image.file_meta.TransferSyntaxUID = uid
    for size, is_right in (((8, 8), True), ((9, 8), False), ((3000, 2000), False)):
        with BytesIO() as file:
            Image.fromarray(np.zeros(size, np.uint8)).save(
                file, kind, **({"no_jp2": True} if kind == "JPEG2000" else {})
            )
            stream = file.getvalue()
        assert stated_size(stream) == size
        image.PixelData = encapsulated(stream)
        image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        if is_right:
            render(tmp_path / "a.dcm")
        else:
            assert "damaged" in refusal(tmp_path / "a.dcm")
    assert len(decoded) == 1


def test_codestreams_are_read_as_far_as_they_go() -> None:
    """A cut one has no size, and a JP2 file has that of its codestream."""
    with BytesIO() as file:
        Image.fromarray(np.zeros((30, 20), np.uint8)).save(file, "JPEG2000")
        jp2 = file.getvalue()
    assert jp2.startswith(b"\x00\x00\x00\x0cjP")
    assert stated_size(jp2) == (30, 20)
    with BytesIO() as file:
        Image.fromarray(np.zeros((30, 20), np.uint8)).save(file, "JPEG")
        jpeg = file.getvalue()
    assert stated_size(jpeg[:2] + b"\xff" + jpeg[2:]) == (30, 20)
    for cut in range(20):
        assert stated_size(jpeg[:cut]) is None
        assert stated_size(jp2[:cut]) is None
    assert stated_size(b"RLE") is None


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deflated file of a few bytes may hold gigabytes of zeros."""
    image = dataset(np.zeros((64, 64), np.uint8))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    render(tmp_path / "a.dcm")
    monkeypatch.setattr(frame, "LARGEST_DEFLATED", 4096)
    assert "unpacks to more than" in refusal(tmp_path / "a.dcm")


def test_names_in_odd_places_stay_out_of_the_message(tmp_path: Path) -> None:
    """Values that pydicom would quote, such as a number that is a name."""
    image = dcmread(example("CT_small.dcm"))
    path = tmp_path / "a.dcm"
    image.save_as(path)
    data = path.read_bytes()
    photometric = data.index(b"MONOCHROME2 ")
    path.write_bytes(data[:photometric] + PATIENT.encode() + data[photometric + len(PATIENT) :])
    assert "damaged" in refusal(path)
