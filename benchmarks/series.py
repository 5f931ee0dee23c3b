"""The instances that are sent: series as files of the phantom, and large ones that are streamed."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from struct import pack

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import RLELossless, generate_uid

from dicom_adapter.phantom import PhantomSeries, write_series

MR, CT, RLE, LARGE = "MR 128x128", "CT 512x512", "CT 512x512, RLE", "1 GB multi-frame"
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"
GIGABYTE = 1024**3
PIECE_BYTES = 1024 * 1024
_FRAME_BYTES = 512 * 512 * 2

# As many as every case together takes.
SERIES: Mapping[str, PhantomSeries] = {
    MR: PhantomSeries(modality="MR", slices=3000, rows=128, columns=128),
    CT: PhantomSeries(modality="CT", slices=600, rows=512, columns=512),
    RLE: PhantomSeries(
        modality="CT", slices=300, rows=512, columns=512, transfer_syntax=RLELossless
    ),
}


def make(folder: Path, part: float) -> dict[str, Sequence[Path]]:
    """Write a part of every series below a folder and return the files by name."""
    return {
        name: write_series(
            folder / str(number), replace(series, slices=int(series.slices * part) + 20)
        )
        for number, (name, series) in enumerate(SERIES.items())
    }


def large(instance: str, size: int, *, deflated: bool = False) -> Iterator[bytes]:
    """Return a multi-frame data set of so many bytes of pixels, piece by piece."""
    pieces = _large(instance, size)
    return _deflated(pieces) if deflated else pieces


def _large(instance: str, size: int) -> Iterator[bytes]:
    yield head(instance, size) + pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", size)
    piece = bytes(PIECE_BYTES)
    for at in range(0, size, PIECE_BYTES):
        yield piece[: size - at]


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    for piece in pieces:
        if data := deflate.compress(piece):
            yield data
    yield deflate.flush()


def head(instance: str, size: int) -> bytes:
    """Return all of a multi-frame data set that comes before its pixels, in explicit VR."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = MULTI_FRAME, instance
    data_set.Modality, data_set.PatientID, data_set.PatientName = "OT", "LARGE", "Large^Instance"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid()
    data_set.StudyID, data_set.SeriesNumber, data_set.InstanceNumber = "1", 1, 1
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.Rows, data_set.Columns = 512, 512
    data_set.NumberOfFrames = max(1, size // _FRAME_BYTES)
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 16, 16, 15
    data_set.PixelRepresentation = 0
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, data_set)
    return file.getvalue()
