"""The series as frozen values: its instances, and for each frame where it lies (PS3.3 C.7.6.2)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from dicom_adapter.pipelines.header import Header
from dicom_adapter.pipelines.planes import Plane, read_planes

PIXEL_TAGS: dict[int, Literal["integer", "float", "double"]] = {
    0x7FE00008: "float",
    0x7FE00009: "double",
    0x7FE00010: "integer",
}
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class Pixels:
    """How the pixel data are stored (PS3.3 C.7.6.3)."""

    kind: Literal["integer", "float", "double"]
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    padding: tuple[int, int] | None
    modality_lut: bool
    truncated: bool


@dataclass(frozen=True)
class Instance:
    """One file of the series; `pixels` is None when it holds no image."""

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    modality: str
    instance_number: int | None
    image_type: tuple[str, ...]
    frame_of_reference_uid: str
    unit: str
    pixel_aspect: tuple[float, float] | None
    pixels: Pixels | None
    planes: tuple[Plane, ...]
    invalid: frozenset[str]


@dataclass(frozen=True)
class Image:
    """One frame of one instance."""

    instance: Instance
    pixels: Pixels
    plane: Plane


@dataclass(frozen=True)
class Series:
    """One input of the job; `number` counts from 1, `unreadable` files could not be parsed."""

    number: int
    instances: tuple[Instance, ...]
    unreadable: int

    @property
    def modality(self) -> str:
        """The modality of the first instance that names one, `""` when none does."""
        return next((each.modality for each in self.instances if each.modality), "")

    @property
    def images(self) -> tuple[Image, ...]:
        """All frames of all instances that hold images, in order."""
        return tuple(
            Image(instance, instance.pixels, plane)
            for instance in self.instances
            if instance.pixels
            for plane in instance.planes
        )

    @property
    def title(self) -> str:
        """What the log calls the series; a modality that is none could hold anything."""
        known = re.fullmatch("[A-Z]{2,8}", self.modality, re.ASCII)
        return f"series {self.number} ({self.modality if known else 'no modality'})"


def read_series(number: int, files: tuple[Path, ...], done: Callable[[], None]) -> Series:
    """Read the headers of the files; `done` is called after each."""
    instances = []
    for path in files:
        instance = read_instance(path)
        if instance:
            instances.append(instance)
        done()
    return Series(number, tuple(instances), len(files) - len(instances))


def read_instance(path: Path) -> Instance | None:
    """Read one file up to its pixel data, or return None when it is no DICOM file to rely on.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            dataset, pixel_data = _read_header(file)
            return _instance(path, dataset, pixel_data)
        except Exception:  # noqa: BLE001 - a broken file makes pydicom raise whatever it likes
            return None


@dataclass(frozen=True)
class _PixelData:
    """The element that holds the pixels: what it says of its length, and how much is there."""

    tag: int
    length: int
    present: int


def _read_header(file: BinaryIO) -> tuple[FileDataset, _PixelData | None]:
    """The data set before the pixel data, and what the pixel data's own header says."""
    seen: list[tuple[int, int]] = []

    def at_pixel_data(tag: BaseTag, _: str | None, length: int) -> bool:
        if int(tag) not in PIXEL_TAGS:
            return False
        seen.append((int(tag), length))
        return True

    dataset = read_partial(file, stop_when=at_pixel_data)
    if not seen:
        return dataset, None
    tag, length = seen[0]
    # A deflated file was read to its end, so its position says nothing about the pixel data.
    here = file.tell()
    rest = file.seek(0, 2) - here
    return dataset, _PixelData(tag, length, rest or length)


def _instance(path: Path, dataset: FileDataset, pixel_data: _PixelData | None) -> Instance | None:
    """The instance's values; None when the file has none of the UIDs that make it an instance."""
    header = Header(dataset)
    if not header.text("SOPClassUID"):
        return None
    pixels = _pixels(header, pixel_data) if pixel_data else None
    aspect = header.numbers("PixelAspectRatio", 2)
    return Instance(
        path=path,
        study_instance_uid=header.text("StudyInstanceUID"),
        series_instance_uid=header.text("SeriesInstanceUID"),
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        modality=header.text("Modality"),
        instance_number=header.integer("InstanceNumber"),
        image_type=tuple(header.text("ImageType").split("\\")),
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
        unit=_unit(header),
        pixel_aspect=(aspect[0], aspect[1]) if aspect and min(aspect) > 0 else None,
        pixels=pixels,
        planes=read_planes(header, pixels.frames) if pixels else (),
        invalid=frozenset(header.invalid),
    )


def _unit(header: Header) -> str:
    """What the rescaled values are in: HU for CT unless it says otherwise (PS3.3 C.8.2.1.1.2)."""
    named = header.text("RescaleType") or header.text("Units") or header.text("DoseUnits")
    if not named and header.text("Modality") == "CT" and header.number("RescaleSlope") is not None:
        return "HU"
    return named or "unspecified"


def _pixels(header: Header, pixel_data: _PixelData) -> Pixels:
    """How the pixel data are stored; what the header does not say is what a decoder would need."""
    allocated = header.integer("BitsAllocated") or 0
    pixels = Pixels(
        kind=PIXEL_TAGS[pixel_data.tag],
        rows=header.integer("Rows") or 0,
        columns=header.integer("Columns") or 0,
        frames=max(header.integer("NumberOfFrames") or 1, 1),
        samples=header.integer("SamplesPerPixel") or 1,
        photometric=header.text("PhotometricInterpretation"),
        bits_allocated=allocated,
        bits_stored=header.integer("BitsStored") or allocated,
        signed=header.integer("PixelRepresentation") == 1,
        padding=_padding(header),
        modality_lut=header.item("ModalityLUTSequence") is not None,
        truncated=False,
    )
    room = _room(pixels, pixel_data)
    if pixels.frames <= room:
        return pixels
    # A wild NumberOfFrames shall not make anyone count to it.
    return replace(pixels, frames=max(1, room), truncated=True)


def _room(pixels: Pixels, pixel_data: _PixelData) -> int:
    """How many frames the pixel data have room for; each fragment needs 8 bytes (PS3.5 A.4)."""
    if pixel_data.length == UNDEFINED_LENGTH:
        return pixel_data.present // 8
    samples = pixels.samples - ("422" in pixels.photometric)
    bits = pixels.rows * pixels.columns * samples * pixels.bits_allocated
    present = 8 * min(pixel_data.length, pixel_data.present)
    return present // bits if bits else 1


def _padding(header: Header) -> tuple[int, int] | None:
    """The lowest and highest stored value that stand for no image (PS3.3 C.7.5.1.1.2)."""
    first = header.integer("PixelPaddingValue")
    if first is None:
        return None
    last = header.integer("PixelPaddingRangeLimit")
    ends = [first, first if last is None else last]
    if header.integer("PixelRepresentation") == 1:
        # Written as US though the pixels are signed, as some scanners do.
        half, whole = 2**15, 2**16
        ends = [end - whole if half <= end < whole else end for end in ends]
    return min(ends), max(ends)
