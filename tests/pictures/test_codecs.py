"""Pictures of what pydicom alone does not decode: JPEG with 12 bits, High-Throughput JPEG 2000."""

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGExtended12Bit

from dicom_adapter.errors import NoPictureError
from dicom_adapter.pictures import codecs
from dicom_adapter.pictures.drawing import Drawing
from dicom_adapter.pictures.picture import render

from .make import Stored, dataset, encapsulated, example, write

SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
ROWS, COLUMNS = 40, 56
GREY = np.add.outer(np.arange(ROWS) * 40, np.arange(COLUMNS) * 30)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Decode by these as the process does that draws; no other test does."""
    codecs.register()
    yield
    for uid in (JPEGExtended12Bit, *SYNTAXES):
        get_decoder(uid).remove_plugin("imagecodecs")


def compressed(path: Path, stored: Stored, codestream: bytes, syntax: UID) -> Path:
    """Write an image whose only frame is so encoded."""
    image = dataset(stored)
    if stored.ndim > 2:
        coloured(image, stored)
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulated(codestream)
    image["PixelData"].is_undefined_length = True
    image.save_as(path, enforce_file_format=True)
    return path


def coloured(image: object, stored: Stored) -> None:
    """Describe pixels of three samples."""
    values = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "NumberOfFrames": 1,
    }
    for keyword, value in values.items():
        setattr(image, keyword, value)


def pixels(png: bytes) -> Stored:
    """Return what a picture shows."""
    return np.asarray(Image.open(BytesIO(png)), dtype=np.int64)


def test_jpeg_of_12_bits_is_drawn_as_dcmtk_decodes_it(tmp_path: Path) -> None:
    """A real file; the two decoders may round otherwise."""
    plain = tmp_path / "plain.dcm"
    subprocess.run(["dcmdjpeg", str(example("JPGExtended.dcm")), str(plain)], check=True)
    # By a process of its own, as the service has it drawn.
    ours = pixels(Drawing().instance(example("JPGExtended.dcm")))
    theirs = pixels(render(plain))
    assert ours.shape == theirs.shape
    assert ours.std() > 10
    assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "stored",
    [
        GREY.astype(np.uint16),
        (GREY - 1500).astype(np.int16),
        (GREY // 15).astype(np.uint8),
        np.stack([GREY // 15, GREY // 20, 255 - GREY // 15], axis=-1).astype(np.uint8),
    ],
    ids=["grey", "signed", "8 bits", "colour"],
)
def test_high_throughput_jpeg_2000_is_drawn(tmp_path: Path, syntax: UID, stored: Stored) -> None:
    """As the same image without compression."""
    codestream = bytes(imagecodecs.htj2k_encode(stored))
    assert b"\xff\x50" in codestream, "CAP: that it is of Part 15"
    path = compressed(tmp_path / "packed.dcm", stored, codestream, syntax)
    plain = dataset(stored)
    if stored.ndim > 2:
        coloured(plain, stored)
    plain.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    assert (pixels(render(path)) == pixels(render(tmp_path / "plain.dcm"))).all()


def test_a_broken_codestream_is_refused(tmp_path: Path) -> None:
    """Wherever it ends, and whatever it says of its size."""
    stored = GREY.astype(np.uint16)
    whole = bytes(imagecodecs.htj2k_encode(stored))
    for end in (3, 20, 60, len(whole) // 2):
        path = compressed(tmp_path / f"{end}.dcm", stored, whole[:end], HTJ2KLossless)
        with pytest.raises(NoPictureError, match=r"damaged|a kind of"):
            render(path)
    other = bytes(imagecodecs.htj2k_encode(stored[:-1]))
    with pytest.raises(NoPictureError, match="damaged"):
        render(compressed(tmp_path / "other.dcm", stored, other, HTJ2KLossless))
    assert render(write(tmp_path / "whole.dcm", stored))
