"""A phantom patient's chest as CT or MR series: Part 10 files for demonstrations and tests.

The body is drawn in patient coordinates (LPS, mm, the body's centre at the origin), so the same
place shows the same tissue in whatever orientation it is sliced. It is asymmetric on purpose: the
spine is behind, the liver on the right below, the left lung is smaller, and the nodule lies in the
right lung. A flipped image shows at once. Nothing in it comes from a real person.

The defects that scanners and networks make can be planted through the parameters of PhantomSeries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
# Axial, turned by 20 degrees about the patient's left-right axis.
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.9396926208, 0.3420201433)

NODULE_CENTRE = (-85.0, -20.0, 30.0)
NODULE_RADIUS = 12.0

TRANSFER_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
)

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tissue:
    """An ellipsoid: its centre and half axes in mm (LPS), its CT number and its MR signal."""

    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    hounsfield: float
    signal: float


# Painted in this order, each over what was there before.
TISSUES = (
    Tissue((0, 0, 0), (170, 115, 260), 20, 420),  # body
    Tissue((-72, -8, 20), (58, 78, 100), -820, 60),  # right lung
    Tissue((76, -8, 25), (48, 70, 88), -820, 60),  # left lung
    Tissue((22, -35, -10), (45, 42, 55), 260, 300),  # heart
    Tissue((-58, -5, -122), (78, 74, 58), 140, 520),  # liver
    Tissue((0, 78, 0), (19, 19, 900), 420, 180),  # spine
    Tissue((0, 82, 0), (7, 7, 900), 20, 640),  # spinal canal
    Tissue(NODULE_CENTRE, (NODULE_RADIUS,) * 3, 700, 900),
)
AIR = Tissue((0, 0, 0), (1, 1, 1), -1000, 5)


@dataclass(frozen=True)
class PhantomSeries:
    """What to make; lengths are in mm, UIDs left empty are new with each call of write_series.

    `slices` parallel planes, `slice_spacing` apart, are centred on `centre`, and the k-th plane
    lies k spacings along the normal (row x column direction cosines) from the first, as PS3.3
    C.7.6.2.1.1 has it. Planted defects name slices by that k:

    - `missing_slices` are not written, though their InstanceNumber is used up;
    - `doubled_instance_numbers` carry the InstanceNumber of the slice before them;
    - `moved_slices` lie half a spacing further on than they should;
    - `shear` moves each slice by so many mm along the columns, as a tilted gantry does;
    - `localizer` puts a coronal LOCALIZER image first;
    - `second_orientation` adds as many slices again in that orientation.
    """

    modality: str = "CT"
    slices: int = 40
    rows: int = 256
    columns: int = 256
    pixel_spacing: tuple[float, float] = (1.5, 1.5)
    slice_spacing: float = 5.0
    orientation: tuple[float, float, float, float, float, float] = AXIAL
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    transfer_syntax: str = ExplicitVRLittleEndian
    patient_id: str = field(default="PHANTOM-1", repr=False)
    patient_name: str = field(default="Phantom^Chest", repr=False)
    issuer_of_patient_id: str = "DICOM-ADAPTER"
    accession_number: str = "PHANTOM"
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    series_number: int = 1
    series_description: str = "Phantom chest"
    first_instance_number: int = 1
    seed: int = 0
    missing_slices: tuple[int, ...] = ()
    doubled_instance_numbers: tuple[int, ...] = ()
    moved_slices: tuple[int, ...] = ()
    shear: float = 0.0
    localizer: bool = False
    second_orientation: tuple[float, float, float, float, float, float] | None = None


@dataclass(frozen=True)
class _Plane:
    """One image to make: where its first voxel's centre is, and what it is called."""

    position: Vector
    orientation: tuple[float, float, float, float, float, float]
    instance_number: int
    image_type: str


def write_series(folder: Path, series: PhantomSeries) -> list[Path]:
    """Write the series as 0001.dcm, 0002.dcm, ... into the folder, and return the paths in order.

    The folder is made when it is not there. Pixels depend on the series and its seed alone.

    Raises:
        ValueError: The modality is neither CT nor MR, or the transfer syntax cannot be written.
    """
    if series.modality not in ("CT", "MR"):
        raise ValueError(f"the phantom is made as CT or MR, not as {series.modality}")
    if series.transfer_syntax not in TRANSFER_SYNTAXES:
        names = ", ".join(syntax.name for syntax in TRANSFER_SYNTAXES)
        raise ValueError(f"the phantom cannot be written in that transfer syntax, but in {names}")
    folder.mkdir(parents=True, exist_ok=True)
    common = _common_attributes(series)
    paths = []
    for index, plane in enumerate(_planes(series)):
        path = folder / f"{index + 1:04d}.dcm"
        _instance(series, plane, common).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _planes(series: PhantomSeries) -> Iterator[_Plane]:
    """The images of the series in the order in which they are written."""
    number = series.first_instance_number
    if series.localizer:
        yield _Plane(_first_voxel(series, CORONAL), CORONAL, number, "ORIGINAL\\PRIMARY\\LOCALIZER")
        number += 1
    image_type = "ORIGINAL\\PRIMARY\\" + ("AXIAL" if series.modality == "CT" else "OTHER")
    for orientation in filter(None, (series.orientation, series.second_orientation)):
        normal = np.cross(orientation[:3], orientation[3:])
        first = _first_voxel(series, orientation) - normal * (
            series.slice_spacing * (series.slices - 1) / 2
        )
        for k in range(series.slices):
            steps = k + (0.5 if k in series.moved_slices else 0.0)
            position = first + normal * (series.slice_spacing * steps)
            position = position + np.asarray(orientation[3:]) * (series.shear * k)
            if k not in series.missing_slices:
                doubled = k in series.doubled_instance_numbers
                yield _Plane(position, orientation, number - doubled, image_type)
            number += 1


def _first_voxel(series: PhantomSeries, orientation: tuple[float, ...]) -> Vector:
    """Where the first voxel's centre is in the plane through the centre of the series, in mm."""
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    down, across = series.pixel_spacing
    return (
        np.asarray(series.centre, dtype=np.float64)
        - row * (across * (series.columns - 1) / 2)
        - column * (down * (series.rows - 1) / 2)
    )


def _instance(series: PhantomSeries, plane: _Plane, common: Dataset) -> FileDataset:
    """One instance, ready to be saved."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = common.SOPClassUID
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = UID(series.transfer_syntax)
    order = ">" if series.transfer_syntax == ExplicitVRBigEndian else "<"
    image = FileDataset(
        "", common, preamble=bytes(128), file_meta=meta, is_little_endian=order == "<"
    )
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.ImageType = plane.image_type
    image.InstanceNumber = plane.instance_number
    image.ImagePositionPatient = _decimals(*plane.position)
    image.ImageOrientationPatient = _decimals(*plane.orientation)
    image.SliceLocation = _decimals(
        float(np.dot(plane.position, np.cross(plane.orientation[:3], plane.orientation[3:])))
    )
    compressed = series.transfer_syntax == RLELossless
    if compressed:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored = _slice(series, plane).astype(f"{order}i2" if series.modality == "CT" else f"{order}u2")
    image.add_new("PixelData", "OW", stored.tobytes())
    if compressed:
        image.compress(RLELossless, generate_instance_uid=False)
    return image


def _slice(series: PhantomSeries, plane: _Plane) -> Floats:
    """The stored values of one plane, rows x columns."""
    down, across = series.pixel_spacing
    rows = (np.arange(series.rows, dtype=np.float32) * down)[:, None]
    columns = (np.arange(series.columns, dtype=np.float32) * across)[None, :]
    place = [
        np.float32(plane.position[axis])
        + columns * np.float32(plane.orientation[axis])
        + rows * np.float32(plane.orientation[axis + 3])
        for axis in range(3)
    ]
    is_ct = series.modality == "CT"
    image = np.full(
        (series.rows, series.columns), AIR.hounsfield if is_ct else AIR.signal, np.float32
    )
    for tissue in TISSUES:
        inside = sum(
            ((place[axis] - np.float32(tissue.centre[axis])) / np.float32(half)) ** 2
            for axis, half in enumerate(tissue.half_axes)
        )
        image[np.less_equal(inside, 1)] = tissue.hounsfield if is_ct else tissue.signal
    noise = np.random.default_rng((series.seed, abs(plane.instance_number)))
    image += noise.standard_normal(image.shape, dtype=np.float32) * np.float32(8)
    # Stored values of the CT are 0 for air and 1000 for water, as its rescale intercept says.
    return np.rint(image + 1024) if is_ct else np.rint(np.abs(image))


def _common_attributes(series: PhantomSeries) -> Dataset:
    """What all instances of the series share, of the modules of PS3.3 A.3.3 and A.4.3."""
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.SOPClassUID = CTImageStorage if series.modality == "CT" else MRImageStorage
    common.PatientName = series.patient_name
    common.PatientID = series.patient_id
    common.IssuerOfPatientID = series.issuer_of_patient_id
    common.PatientBirthDate = "19500101"
    common.PatientSex = "O"
    common.StudyInstanceUID = series.study_instance_uid or generate_uid()
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = "20240229"
    common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = "120000"
    common.StudyID = "1"
    common.StudyDescription = "Phantom"
    common.AccessionNumber = series.accession_number
    common.ReferringPhysicianName = ""
    common.Modality = series.modality
    common.SeriesInstanceUID = series.series_instance_uid or generate_uid()
    common.SeriesNumber = series.series_number
    common.SeriesDescription = series.series_description
    common.BodyPartExamined = "CHEST"
    common.PatientPosition = "HFS"
    common.FrameOfReferenceUID = series.frame_of_reference_uid or generate_uid()
    common.PositionReferenceIndicator = ""
    common.Manufacturer = "DICOM Adapter"
    common.ManufacturerModelName = "Phantom"
    common.AcquisitionNumber = 1
    common.SliceThickness = _decimals(series.slice_spacing)
    common.PixelSpacing = _decimals(*series.pixel_spacing)
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows = series.rows
    common.Columns = series.columns
    common.BitsAllocated = 16
    _add_acquisition(common)
    return common


def _add_acquisition(common: Dataset) -> None:
    """Add what only a CT or only an MR image has."""
    if common.Modality == "CT":
        common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 15, 1
        common.RescaleIntercept, common.RescaleSlope, common.RescaleType = "-1024", "1", "HU"
        common.WindowCenter, common.WindowWidth = "-100", "1600"
        common.KVP = "120"
        return
    common.BitsStored, common.HighBit, common.PixelRepresentation = 12, 11, 0
    common.ScanningSequence, common.SequenceVariant, common.ScanOptions = "SE", "NONE", ""
    common.MRAcquisitionType = "2D"
    common.RepetitionTime, common.EchoTime, common.EchoTrainLength = "500", "10", "1"
    common.SpacingBetweenSlices = common.SliceThickness


def _decimals(*values: float) -> list[str]:
    """The values as DS, which has room for 16 characters (PS3.5 6.2)."""
    return [f"{round(value, 6) + 0.0:.10g}" for value in values]
