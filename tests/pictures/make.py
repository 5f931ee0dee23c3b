"""Small images with planted pixels, written as Part 10 files, and pictures read back."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dicom_adapter.pictures.picture import render

PATIENT = "Planted^Name"

Bytes = npt.NDArray[np.uint8]
Stored = npt.NDArray[Any]


def example(name: str) -> Path:
    """A file that ships with pydicom."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def write(
    path: Path,
    stored: Stored,
    **attributes: object,
) -> Path:
    """Write an image of rows x columns, or frames x rows x columns, with these attributes."""
    image = dataset(stored)
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.save_as(path, enforce_file_format=True)
    return path


def dataset(stored: Stored) -> FileDataset:
    """An image of a patient with a name that no message may hold."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.PatientName = PATIENT
    image.PatientID = PATIENT
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        image.NumberOfFrames = stored.shape[0]
    image.BitsAllocated = image.BitsStored = 8 * stored.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(stored.dtype.kind == "i")
    data = stored.tobytes()
    image.add_new("PixelData", "OW", data + bytes(len(data) % 2))
    return image


def encapsulated(*frames: bytes) -> bytes:
    """Compressed frames as the value of PixelData."""
    value = encapsulate(list(frames))
    assert isinstance(value, bytes)
    return value


def items(*each: Mapping[str, object]) -> Sequence:
    """A sequence of items with these attributes."""
    made = []
    for attributes in each:
        item = Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        made.append(item)
    return Sequence(made)


def picture(path: Path, **options: int) -> Bytes:
    """The rendered picture: rows x columns, x 3 in colour."""
    return pixels(render(path, **options))


def pixels(png: bytes) -> Bytes:
    """The pixels of a PNG."""
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)
