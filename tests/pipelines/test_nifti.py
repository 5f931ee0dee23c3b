from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_adapter.phantom import AXIAL, CORONAL, NODULE_CENTRE, OBLIQUE, SAGITTAL, PhantomSeries

from .conftest import SMALL, Bench, codes

ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}
FINE = PhantomSeries(
    slices=30, rows=80, columns=96, pixel_spacing=(4.0, 5.0), slice_spacing=7.0, seed=3
)
PAIR = replace(
    SMALL,
    modality="MR",
    study_instance_uid="1.2",
    series_instance_uid="1.2.3",
    frame_of_reference_uid="1.2.4",
)

Volume = npt.NDArray[np.float64]


def load(path: Path) -> tuple[Any, Volume]:
    """The NIfTI image and its scaled voxels."""
    image: Any = nibabel.load(path)
    return image, np.asarray(image.get_fdata())


def to_ras(lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Patient coordinates as NIfTI has them."""
    return np.asarray(lps, dtype=np.float64) * (-1, -1, 1)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_affine_leads_to_every_slice(bench: Bench, name: str) -> None:
    """The affine leads from (i, j, k) to where the headers say that this pixel lies."""
    paths = bench.write(replace(FINE, orientation=ORIENTATIONS[name]))
    volume = bench.nifti()[0]["volumes"][0]
    image, voxels = load(bench.output / volume["file"])
    assert voxels.shape == (96, 80, 30)
    for k, path in enumerate(paths):
        header = dcmread(path)
        row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        corner = np.array(header.ImagePositionPatient, dtype=float)
        # 50 columns to the right, 60 rows down (PS3.3 C.7.6.2.1.1).
        place = corner + row * 5.0 * 50 + column * 4.0 * 60
        assert image.affine @ (50, 60, k, 1) == pytest.approx([*to_ras(place), 1], abs=1e-3)
        expected = header.pixel_array[60, 50] + float(header.RescaleIntercept)
        assert voxels[50, 60, k] == expected


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_nodule_lies_where_the_patient_has_it(bench: Bench, name: str) -> None:
    """The brightest voxels surround the nodule's centre, through sform and qform alike."""
    bench.write(replace(FINE, orientation=ORIENTATIONS[name]))
    volume = bench.nifti()[0]["volumes"][0]
    image, voxels = load(bench.output / volume["file"])
    for affine in (image.get_sform(), image.get_qform()):
        index = np.linalg.inv(affine) @ [*to_ras(NODULE_CENTRE), 1]
        i, j, k = np.rint(index[:3]).astype(int)
        assert voxels[i, j, k] == pytest.approx(700, abs=40)
        bright = np.argwhere(voxels > 600).mean(axis=0)
        assert affine @ [*bright, 1] == pytest.approx([*to_ras(NODULE_CENTRE), 1], abs=2)


def test_the_header_says_scanner_and_millimetres(bench: Bench) -> None:
    """Both sform and qform have code 1, lengths are mm, and voxel sizes are those of the images."""
    bench.write(FINE)
    volume = bench.nifti()[0]["volumes"][0]
    header = load(bench.output / volume["file"])[0].header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units() == ("mm", "unknown")
    assert header.get_zooms() == pytest.approx((5.0, 4.0, 7.0))
    assert volume["voxel_size_mm"] == pytest.approx([5.0, 4.0, 7.0])
    assert np.linalg.det(volume["affine"]) > 0


def test_values_stay_as_stored_with_the_rescale_in_the_header(bench: Bench) -> None:
    """A rescale that all slices share costs no precision: 16-bit voxels with scl_inter."""
    bench.write()
    volume = bench.nifti()[0]["volumes"][0]
    image, voxels = load(bench.output / volume["file"])
    assert (volume["datatype"], image.get_data_dtype()) == ("int16", np.int16)
    assert (image.dataobj.slope, image.dataobj.inter) == (1, -1024)
    assert voxels[0, 0, 0] == pytest.approx(-1000, abs=50)


def test_rescales_that_differ_make_floats(bench: Bench) -> None:
    """Slices with a rescale each are rescaled each, as 32-bit float."""
    paths = bench.write()
    bench.edit(paths[3], lambda image: setattr(image, "RescaleSlope", "2.5"))
    volume = bench.nifti()[0]["volumes"][0]
    voxels = load(bench.output / volume["file"])[1]
    pixels = dcmread(paths[3]).pixel_array
    assert volume["datatype"] == "float32"
    assert voxels[:, :, 3] == pytest.approx(pixels.T * 2.5 - 1024)


def test_slices_are_sorted_by_position(bench: Bench) -> None:
    """The order of files and numbers has no say in the geometry."""
    paths = bench.write(FINE)
    bench.nifti()
    expected = load(bench.output / "series-01.nii.gz")[1]
    for number, path in enumerate(reversed(paths)):
        path.rename(path.with_name(f"x{number:04d}.dcm"))
    bench.nifti()
    assert np.array_equal(load(bench.output / "series-01.nii.gz")[1], expected)


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        ({"missing_slices": (3,)}, "missing-slices"),
        ({"moved_slices": (3,)}, "irregular-spacing"),
    ],
)
def test_an_uncertain_geometry_is_not_written(
    bench: Bench, defect: dict[str, Any], code: str
) -> None:
    """Missing or moved slices give a finding and no file."""
    bench.write(replace(SMALL, **defect))
    series = bench.nifti()[0]
    assert series["volumes"] == []
    assert {code, "no-volume"} <= codes(series)
    assert [path.name for path in bench.output.iterdir()] == ["nifti.json"]


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "PixelSpacing"])
def test_a_broken_geometry_is_not_written(bench: Bench, keyword: str) -> None:
    """Values that are absent or cannot be read give no volume."""
    for path in bench.write():
        bench.edit(path, lambda image: image.add_new(keyword, "LO", "nonsense"))
    series = bench.nifti()[0]
    assert series["volumes"] == []
    assert "invalid-values" in codes(series)


def test_a_leaning_stack_has_a_sheared_sform_and_no_qform(bench: Bench) -> None:
    """A tilted gantry's stack lies right by its sform, and no qform claims otherwise."""
    paths = bench.write(replace(FINE, shear=2.0))
    series = bench.nifti()[0]
    volume = series["volumes"][0]
    image = load(bench.output / volume["file"])[0]
    assert volume["is_sheared"]
    assert codes(series) == {"gantry-tilt"}
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    last = dcmread(paths[-1])
    assert image.affine @ (0, 0, 29, 1) == pytest.approx([*to_ras(last.ImagePositionPatient), 1])


def test_each_orientation_is_a_volume_of_its_own(bench: Bench) -> None:
    """A localizer and a second orientation do not spoil the stack, and lie right themselves."""
    paths = bench.write(replace(FINE, localizer=True, second_orientation=SAGITTAL))
    volumes = bench.nifti()[0]["volumes"]
    assert [volume["file"] for volume in volumes] == [
        f"series-01-volume-{number}.nii.gz" for number in (1, 2, 3)
    ]
    assert [volume["shape"] for volume in volumes] == [[96, 80, 1], [96, 80, 30], [96, 80, 30]]
    for volume, path in zip(volumes, (paths[0], paths[1], paths[31]), strict=True):
        corner = to_ras(dcmread(path).ImagePositionPatient)
        assert np.array(volume["affine"])[:3, 3] == pytest.approx(corner)


def test_positions_that_repeat_are_the_fourth_axis(bench: Bench) -> None:
    """N positions with T echoes each are T volumes, in the order of the echo times."""
    for name, (echo, number) in {"a": ("80", 1), "b": ("20", 2)}.items():
        for index, path in enumerate(bench.write(replace(PAIR, seed=number), name)):

            def change(
                image: FileDataset, echo: str = echo, place: int = 2 * index + number
            ) -> None:
                image.EchoTime, image.InstanceNumber = echo, place

            bench.edit(path, change)
    series = bench.nifti()[0]
    volume = series["volumes"][0]
    voxels = load(bench.output / volume["file"])[1]
    assert codes(series) == {"repeated-positions"}
    assert (volume["shape"], volume["volumes_by"]) == ([64, 48, 8, 2], "EchoTime")
    short = dcmread(bench.input / "b" / "0003.dcm").pixel_array
    assert np.array_equal(voxels[:, :, 2, 0], short.T)


def test_instance_numbers_order_volumes_that_nothing_else_tells_apart(bench: Bench) -> None:
    """Without an attribute that differs, volumes that follow one another by number are told so."""
    bench.write(PAIR, "a")
    bench.write(replace(PAIR, first_instance_number=9, seed=5), "b")
    volume = bench.nifti()[0]["volumes"][0]
    assert (volume["shape"], volume["volumes_by"]) == ([64, 48, 8, 2], "InstanceNumber")
    second = dcmread(bench.input / "b" / "0001.dcm").pixel_array
    assert np.array_equal(load(bench.output / volume["file"])[1][:, :, 0, 1], second.T)


def test_volumes_that_cannot_be_told_apart_are_refused(bench: Bench) -> None:
    """With equal numbers nothing says which image belongs to which volume."""
    bench.write(PAIR, "a")
    bench.write(PAIR, "b")
    series = bench.nifti()[0]
    assert series["volumes"] == []
    assert "ambiguous-volumes" in codes(series)


def test_an_instance_that_is_there_twice_counts_once(bench: Bench) -> None:
    """A second file with the same SOPInstanceUID is told and left out."""
    path = bench.write()[3]
    (bench.input / "again.dcm").write_bytes(path.read_bytes())
    series = bench.nifti()[0]
    assert codes(series) == {"repeated-instances"}
    assert series["volumes"][0]["shape"] == [64, 48, 8]


def test_a_single_slice_is_as_thick_as_it_says(bench: Bench) -> None:
    """One slice is a volume when its thickness is known, and none when it is not."""
    path = bench.write(replace(SMALL, slices=1))[0]
    assert bench.nifti()[0]["volumes"][0]["voxel_size_mm"] == pytest.approx([6.0, 8.0, 20.0])
    bench.edit(path, lambda image: setattr(image, "SliceThickness", None))
    series = bench.nifti()[0]
    assert series["volumes"] == []
    assert "absent-slice-thickness" in codes(series)
