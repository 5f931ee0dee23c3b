from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

from .conftest import Bench, codes

POSITIONS = 5
ECHOES = ("10", "30")


def item(**values: object) -> Sequence:
    """A sequence of one item with those values."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def frame_groups(position: int, echo: str) -> Dataset:
    """The functional groups of one frame."""
    groups = Dataset()
    groups.PlanePositionSequence = item(ImagePositionPatient=["-10", "-20", str(4 * position)])
    groups.MREchoSequence = item(EffectiveEchoTime=float(echo))
    groups.PixelValueTransformationSequence = item(
        RescaleSlope="2", RescaleIntercept="-5", RescaleType="US"
    )
    groups.FrameVOILUTSequence = item(WindowCenter="100", WindowWidth="200")
    return groups


def enhanced() -> FileDataset:
    """An enhanced MR image: the last position first, the long echo before the short one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    image.SOPClassUID = EnhancedMRImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.FrameOfReferenceUID = generate_uid()
    image.Modality, image.InstanceNumber = "MR", 1
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.NumberOfFrames = 6, 7, POSITIONS * len(ECHOES)
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])
    shared.PixelMeasuresSequence = item(PixelSpacing=["2", "3"], SliceThickness="4")
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    places = [(place, echo) for place in reversed(range(POSITIONS)) for echo in reversed(ECHOES)]
    image.PerFrameFunctionalGroupsSequence = Sequence([frame_groups(*place) for place in places])
    values = [100 * place + int(echo) for place, echo in places]
    pixels = np.repeat(np.array(values, dtype=np.uint16), 6 * 7)
    image.PixelData = pixels.tobytes()
    return image


def test_an_enhanced_image_is_a_volume_by_its_functional_groups(bench: Bench) -> None:
    """Frames go where their functional groups say, in position and in echo."""
    enhanced().save_as(bench.input / "1.dcm", enforce_file_format=True)
    series = bench.nifti()[0]
    volume = series["volumes"][0]
    assert codes(series) == {"repeated-positions"}
    assert (volume["shape"], volume["volumes_by"]) == ([7, 6, 5, 2], "EffectiveEchoTime")
    image: Any = nibabel.load(bench.output / volume["file"])
    assert image.affine == pytest.approx(
        np.array([[-3, 0, 0, 10], [0, -2, 0, 20], [0, 0, 4, 0], [0, 0, 0, 1]])
    )
    for k in range(POSITIONS):
        for t, echo in enumerate(ECHOES):
            assert image.get_fdata()[0, 0, k, t] == 2 * (100 * k + int(echo)) - 5


def test_an_enhanced_image_is_reported_frame_by_frame(bench: Bench) -> None:
    """Each frame is an image with its own position, rescale and tile."""
    enhanced().save_as(bench.input / "1.dcm", enforce_file_format=True)
    series = bench.report()[0]
    assert (series["instances"], series["images"]) == (1, 10)
    assert codes(series) == {"repeated-positions"}
    assert series["stacks"][0]["slice_spacing_mm"] == pytest.approx(4)
    assert series["intensity"]["maximum"] == 2 * 430 - 5
    assert series["montage"]["tiles"] == 10


def test_a_dose_grid_lies_along_its_offsets(bench: Bench) -> None:
    """The frames of an RT Dose follow GridFrameOffsetVector, in DoseGridScaling's units."""
    source = Path(str(get_testdata_file("rtdose.dcm")))
    (bench.input / "1.dcm").write_bytes(source.read_bytes())
    volume = bench.nifti()[0]["volumes"][0]
    dose = dcmread(source)
    image: Any = nibabel.load(bench.output / volume["file"])
    offset = float(dose.GridFrameOffsetVector[4])
    x, y, z = map(float, dose.ImagePositionPatient)
    assert image.affine @ (0, 0, 4, 1) == pytest.approx([-x, -y, z + offset, 1])
    expected = dose.pixel_array[4] * float(dose.DoseGridScaling)
    assert image.get_fdata()[:, :, 4] == pytest.approx(expected.T, rel=1e-6)


def test_a_cine_has_tiles_but_no_geometry(bench: Bench) -> None:
    """The frames of an ultrasound cine are shown in order and are no volume."""
    source = Path(str(get_testdata_file("examples_ybr_color.dcm")))
    (bench.input / "1.dcm").write_bytes(source.read_bytes())
    series = bench.report()[0]
    assert codes(series) == {"no-geometry"}
    assert (series["montage"]["tiles"], series["intensity"]["unit"]) == (30, "luminance")
    assert {"colour-image", "no-volume"} <= codes(bench.nifti()[0])
