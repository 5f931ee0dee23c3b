import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_adapter.phantom import (
    CORONAL,
    NODULE_CENTRE,
    OBLIQUE,
    SAGITTAL,
    TRANSFER_SYNTAXES,
    PhantomSeries,
    write_series,
)

SMALL = PhantomSeries(slices=6, rows=48, columns=64, pixel_spacing=(8.0, 6.0))


def written(folder: Path, series: PhantomSeries) -> list[FileDataset]:
    """Write the series, and read what was written."""
    return [dcmread(path) for path in write_series(folder, series)]


def test_the_same_series_has_the_same_pixels(tmp_path: Path) -> None:
    """The pixels depend on the series and its seed alone."""
    one = written(tmp_path / "one", SMALL)
    other = written(tmp_path / "other", SMALL)
    seeded = written(tmp_path / "seeded", replace(SMALL, seed=1))
    assert [image.PixelData for image in one] == [image.PixelData for image in other]
    assert [image.PixelData for image in one] != [image.PixelData for image in seeded]


def test_uids_are_new_with_each_call(tmp_path: Path) -> None:
    """UIDs that were not given are never used twice."""
    one = written(tmp_path / "one", SMALL)
    other = written(tmp_path / "other", SMALL)
    assert len({image.SOPInstanceUID for image in one + other}) == 12
    assert len({image.SeriesInstanceUID for image in one}) == 1
    assert one[0].StudyInstanceUID != other[0].StudyInstanceUID
    assert one[0].SeriesInstanceUID != other[0].SeriesInstanceUID


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_holds_the_same_image(tmp_path: Path, syntax: str) -> None:
    """The image does not depend on how it is written."""
    plain = written(tmp_path / "plain", SMALL)
    image = written(tmp_path / "image", replace(SMALL, transfer_syntax=syntax))
    assert image[3].file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(image[3].pixel_array, plain[3].pixel_array)


def test_hounsfield_units_are_stored_through_the_rescale(tmp_path: Path) -> None:
    """A CT's stored values become HU by its rescale: air is about -1000."""
    image = written(tmp_path, SMALL)[0]
    corner = float(image.pixel_array[:4, :4].mean())
    assert image.PixelRepresentation == 1
    assert corner * image.RescaleSlope + image.RescaleIntercept == pytest.approx(-1000, abs=15)


@pytest.mark.parametrize("orientation", [SAGITTAL, CORONAL, OBLIQUE])
def test_the_nodule_is_where_it_should_be_in_every_orientation(
    tmp_path: Path, orientation: tuple[float, float, float, float, float, float]
) -> None:
    """The same place in the patient shows the same tissue, however it is sliced."""
    series = PhantomSeries(orientation=orientation, centre=NODULE_CENTRE, slices=1, rows=63)
    image = written(tmp_path, series)[0]
    hounsfield = image.pixel_array[31, 127:129].mean() - 1024
    assert hounsfield == pytest.approx(700, abs=30)


def test_planted_defects_are_in_the_headers(tmp_path: Path) -> None:
    """Each planted defect is what its parameter says, and nothing else."""
    series = replace(SMALL, missing_slices=(1,), doubled_instance_numbers=(4,), moved_slices=(5,))
    images = written(tmp_path, series)
    assert [image.InstanceNumber for image in images] == [1, 3, 4, 4, 6]
    positions = [float(image.ImagePositionPatient[2]) for image in images]
    assert np.diff(positions).tolist() == [10, 5, 5, 7.5]


def test_a_localizer_comes_first_and_another_orientation_last(tmp_path: Path) -> None:
    """A series may hold a localizer and two orientations, numbered through."""
    series = replace(SMALL, localizer=True, second_orientation=SAGITTAL)
    images = written(tmp_path, series)
    assert images[0].ImageType[2] == "LOCALIZER"
    assert [image.InstanceNumber for image in images] == list(range(1, 14))
    assert {tuple(image.ImageOrientationPatient) for image in images[7:]} == {SAGITTAL}


@pytest.mark.parametrize(
    "wrong", [replace(SMALL, modality="US"), replace(SMALL, transfer_syntax="1.2.3")]
)
def test_what_the_phantom_cannot_be_is_refused(tmp_path: Path, wrong: PhantomSeries) -> None:
    """A modality or transfer syntax that it cannot be made in is refused before it writes."""
    with pytest.raises(ValueError, match="phantom"):
        write_series(tmp_path / "none", wrong)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="DCMTK's dcmdump is not installed")
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dcmtk_reads_the_phantom(tmp_path: Path, modality: str) -> None:
    """DCMTK reads an instance without a word of complaint."""
    path = write_series(tmp_path, replace(SMALL, modality=modality))[0]
    result = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert f"={modality}ImageStorage" in result.stdout
