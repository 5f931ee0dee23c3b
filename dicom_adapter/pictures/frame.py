"""Decodes one frame of a Part 10 file, within bounds, and says in our words why it cannot.

The libraries' own messages quote headers, and so patient data: none of them leaves this module.
"""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import BinaryIO

import gdcm
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_adapter.errors import (
    InvalidArgumentError,
    NoPictureError,
    NotFoundError,
    UnavailableError,
    fingerprint,
)
from dicom_adapter.pictures.codestream import stated_size
from dicom_adapter.pictures.header import TAGS, Header
from dicom_adapter.pictures.shades import Stored

log = structlog.get_logger()

#: The largest frame that is decoded, in bytes: more than any detector gives, whose frames have
#: up to 50 MiB; a slide of pathology is cut into small ones.
LARGEST_FRAME = 256 * 1024**2
# What a deflated file may unpack to; it can only be read as a whole.
LARGEST_DEFLATED = 2 * LARGEST_FRAME

PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
DAMAGED = (
    "its pixel data or their description are damaged or incomplete; "
    "have the sender send the instance again"
)


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    `stored` is rows x columns as stored for grey and palette, rows x columns x 3 RGB for colour.
    """

    stored: Stored
    header: Header


def read_frame(path: Path, number: int | None = None) -> Frame:
    """Decode one frame, counted from 1 as PS3.3 does; the middle one when none is named.

    Broken files make it raise whatever the libraries do: call it within `in_our_words`.

    Raises:
        InvalidArgumentError: There is no such frame.
        NoPictureError: The file holds no picture, or none that can be decoded.
    """
    _hush()
    with path.open("rb") as file:
        dataset = _read_header(file)
        index = _index(dataset, number)
        header = Header(dataset, index)
        _check_decodable(dataset)
        _check_size(header)
        stored = _decode(file, dataset, index)
    if stored.shape[:2] != (header.integer("Rows", 0), header.integer("Columns", 0)):
        raise NoPictureError(DAMAGED)
    return Frame(stored, header)


@contextmanager
def in_our_words(name: str) -> Iterator[None]:
    """Turn whatever is raised into our exceptions, which begin with the file's name.

    Raises:
        InvalidArgumentError: As it was raised.
        NoPictureError: The file holds no picture, or it is broken.
        NotFoundError: There is no such file.
        UnavailableError: The file cannot be read, or memory is short.
    """
    try:
        yield
    except NoPictureError as error:
        raise NoPictureError(f"{name}: {error}") from None
    except InvalidArgumentError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{name}: is not stored any more; choose another instance") from None
    except OSError as error:
        if error.errno in (None, EINVAL):
            # Not the disk's: a library's own, or a place that no file has.
            raise _broken(name, error) from None
        # Its words would name the whole path.
        raise UnavailableError(
            f"{name}: cannot be read ({type(error).__name__}, {error.errno}); see the storage"
        ) from None
    except MemoryError:
        raise UnavailableError(f"{name}: not enough memory to draw it; try later") from None
    except InvalidDicomError:
        raise NoPictureError(f"{name}: is no DICOM file; choose an instance") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever their libraries do
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> NoPictureError:
    """What to raise instead; the log says where it came from."""
    log.info("an image is broken", action="picture.broken", file=name, **fingerprint(error))
    return NoPictureError(f"{name}: {DAMAGED}")


def _hush() -> None:
    """Keep what pydicom, Pillow and GDCM print off standard error, in all threads and for good.

    They quote the values that they complain of. `warnings.catch_warnings` would have to be put
    around each call, and is not safe with threads: it restores what another one has changed.
    """
    pattern = r"(pydicom|PIL)\b"
    for _, _, _, module, _ in warnings.filters:
        if module is not None and getattr(module, "pattern", module) == pattern:
            return
    warnings.filterwarnings("ignore", module=pattern)
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()


def _read_header(file: BinaryIO) -> Dataset:
    """The attributes that a picture needs; the file is left at its pixel data.

    Of a deflated file, which can only be read as a whole, the pixel data are there too.
    """
    seen: list[int] = []

    def at_pixel_data(tag: BaseTag, _: str | None, _length: int) -> bool:
        seen.extend([int(tag)] if int(tag) in PIXEL_DATA else [])
        return bool(seen)

    meta = read_file_meta_info(file.name)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        dataset = _inflate(file, meta)
        seen.extend(PIXEL_DATA.intersection(map(int, dataset.keys())))
    else:
        dataset = read_partial(file, stop_when=at_pixel_data, specific_tags=list(TAGS))
    if not seen:
        kind = _name(meta.get("MediaStorageSOPClassUID"), "unknown SOP class")
        raise NoPictureError(f"holds no pixel data ({kind}); choose an instance with an image")
    return dataset


def _inflate(file: BinaryIO, meta: FileMetaDataset) -> Dataset:
    """The data set of a deflated file (PS3.5 A.5), if it does not unpack to too much."""
    # Preamble and prefix, then the element that says how long the others are.
    file.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    data = unpacker.decompress(file.read(LARGEST_DEFLATED), LARGEST_DEFLATED)
    if unpacker.unconsumed_tail:
        raise NoPictureError(
            f"unpacks to more than {LARGEST_DEFLATED // 1024**2} MiB; "
            "have it sent in another transfer syntax"
        )
    tags: list[BaseTag | int] = [*TAGS, *(Tag(tag) for tag in PIXEL_DATA)]
    dataset = read_dataset(
        BytesIO(data), is_implicit_VR=False, is_little_endian=True, specific_tags=tags
    )
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    dataset.file_meta = meta
    return dataset


def _index(dataset: Dataset, number: int | None) -> int:
    """The index of the frame, from 0."""
    frames = max(1, Header(dataset).integer("NumberOfFrames", 1))
    if number is None:
        return (frames - 1) // 2
    if not 1 <= number <= frames:
        there = f"1 to {frames}" if frames > 1 else "frame 1 only"
        raise InvalidArgumentError("frame", f"{number} is not there; the instance has {there}")
    return number - 1


def _name(uid: object, unknown: str) -> str:
    """The name of a UID of the standard; a file may hold anything in the place of one."""
    name = UID(str(uid)).name
    return unknown if name == str(uid) else name


def _check_decodable(dataset: Dataset) -> None:
    """Refuse transfer syntaxes without a decoder; videos among them, which have no frames."""
    uid = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    try:
        if get_decoder(uid).is_available:
            return
    except NotImplementedError:
        pass
    name = _name(uid, "an unknown one")
    raise NoPictureError(
        f"there is no decoder for its transfer syntax ({name}); have it sent in another one, "
        "such as Explicit VR Little Endian"
    )


def _check_size(header: Header) -> None:
    """Refuse frames without pixels, and those that are too large to be held."""
    samples = max(1, header.integer("SamplesPerPixel", 1))
    rows, columns = header.integer("Rows", 0), header.integer("Columns", 0)
    size = rows * columns * samples * max(1, header.integer("BitsAllocated", 8) // 8)
    if rows < 1 or columns < 1:
        raise NoPictureError(DAMAGED)
    if size > LARGEST_FRAME:
        raise NoPictureError(
            f"a frame of {rows} x {columns} x {samples} is larger than the "
            f"{LARGEST_FRAME // 1024**2} MiB that are drawn; use a viewer of its own kind"
        )


def _decode(file: BinaryIO, dataset: Dataset, index: int) -> Stored:
    """The frame of that index, and no other one; colour of any kind as RGB."""
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        return next(iter_pixels(dataset, indices=[index]))
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return next(iter_pixels(file, indices=[index]))
    _check_codestream(file, Header(dataset), index)
    try:
        return next(iter_pixels(file, indices=[index]))
    except RuntimeError:
        # So pydicom says that no decoder could do it, whether they cannot or the frame is broken.
        name = _name(dataset.file_meta.TransferSyntaxUID, "unknown")
        raise NoPictureError(
            f"its frame cannot be decoded: damaged, or a kind of {name} without a decoder; "
            "have the sender send it uncompressed"
        ) from None


def _check_codestream(file: BinaryIO, header: Header, index: int) -> None:
    """Refuse a compressed frame of another size than the header's, before a decoder believes it."""
    file.seek(12, SEEK_CUR)  # the head of the element: tag, OB, undefined length
    frames = max(1, header.integer("NumberOfFrames", 1))
    size = stated_size(get_frame(file, index, number_of_frames=frames))
    if size is None:
        return
    rows, columns = size
    if columns != header.integer("Columns", 0) or rows not in (0, header.integer("Rows", 0)):
        raise NoPictureError(DAMAGED)
