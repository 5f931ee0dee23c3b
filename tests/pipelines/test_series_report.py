from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import RLELossless, generate_uid

from dicom_adapter.phantom import CORONAL, OBLIQUE, SAGITTAL

from .conftest import SMALL, Bench, codes, message


def test_a_good_series_has_no_findings(bench: Bench) -> None:
    """A series with nothing wrong in it gets no findings."""
    bench.write()
    series = bench.report()[0]
    assert series["findings"] == []
    assert (series["instances"], series["images"], series["modality"]) == (8, 8, "CT")
    assert series["instance_numbers"] == {
        "first": 1,
        "last": 8,
        "missing": [],
        "duplicates": [],
        "absent": 0,
    }


def test_slice_spacing_comes_from_the_positions(bench: Bench) -> None:
    """The slice spacing is that of the positions along the normal, whatever SliceThickness says."""
    for path in bench.write(replace(SMALL, orientation=OBLIQUE)):
        bench.edit(path, lambda image: setattr(image, "SliceThickness", "3"))
    stack = bench.report()[0]["stacks"][0]
    assert stack["slice_spacing_mm"] == pytest.approx(20)
    assert stack["slice_thickness_mm"] == 3
    assert (stack["positions"], stack["direction"]) == (8, "oblique axial")


def test_missing_slices_are_counted(bench: Bench) -> None:
    """Slices that are not there leave gaps both in the numbers and in space."""
    bench.write(replace(SMALL, missing_slices=(2, 3, 6)))
    series = bench.report()[0]
    assert codes(series) == {"missing-instance-numbers", "missing-slices"}
    assert message(series, "missing-instance-numbers") == "3 missing: 3-4, 7"
    assert series["instance_numbers"]["missing"] == [[3, 4], [7, 7]]
    assert series["stacks"][0]["missing_slices"] == 3
    assert series["stacks"][0]["slice_spacing_mm"] == pytest.approx(20)


def test_doubled_instance_numbers_are_found(bench: Bench) -> None:
    """An InstanceNumber used twice is named, and so is the one that is then missing."""
    bench.write(replace(SMALL, doubled_instance_numbers=(4,)))
    series = bench.report()[0]
    assert codes(series) == {"duplicate-instance-numbers", "missing-instance-numbers"}
    assert series["instance_numbers"]["duplicates"] == [4]


def test_absent_zero_and_unreadable_instance_numbers_are_found(bench: Bench) -> None:
    """An InstanceNumber that is absent, 0 or no number is told apart from a gap."""
    paths = bench.write(replace(SMALL, first_instance_number=0))
    bench.edit(paths[6], lambda image: delattr(image, "InstanceNumber"))
    bench.edit(paths[7], lambda image: image.add_new("InstanceNumber", "SH", "eight"))
    series = bench.report()[0]
    assert codes(series) == {
        "absent-instance-numbers",
        "unusual-instance-numbers",
        "invalid-values",
    }
    assert series["instance_numbers"]["absent"] == 2
    assert message(series, "invalid-values").endswith("InstanceNumber")


def test_uneven_spacing_is_found(bench: Bench) -> None:
    """A slice between two places makes the spacing irregular, and none missing."""
    bench.write(replace(SMALL, moved_slices=(3,)))
    series = bench.report()[0]
    assert codes(series) == {"irregular-spacing"}
    assert message(series, "irregular-spacing") == "slices lie between 10.000 and 30.000 mm apart"


def test_two_slices_in_one_place_are_found(bench: Bench) -> None:
    """A position that is there twice, unlike the others, is a fault."""
    paths = bench.write()
    bench.edit(paths[4], lambda image: setattr(image, "ImagePositionPatient", first_position(5)))
    assert "duplicate-positions" in codes(bench.report()[0])


def first_position(k: int) -> list[float]:
    """ImagePositionPatient of the k-th slice of SMALL."""
    return [-189.0, -188.0, 20.0 * (k - 3.5)]


def test_every_position_twice_is_two_volumes(bench: Bench) -> None:
    """When each position is there equally often, that is no fault but several volumes."""
    bench.write(
        replace(SMALL, modality="MR", series_instance_uid="1.2.3", study_instance_uid="1.2")
    )
    again = replace(SMALL, modality="MR", series_instance_uid="1.2.3", study_instance_uid="1.2")
    uid = generate_uid()
    bench.write(replace(again, first_instance_number=9), "2")
    for path in bench.input.rglob("*.dcm"):
        bench.edit(path, lambda image: setattr(image, "FrameOfReferenceUID", uid))
    series = bench.report()[0]
    assert codes(series) == {"repeated-positions"}
    assert series["stacks"][0]["positions"] == 8


def test_a_localizer_and_a_second_orientation_are_stacks_of_their_own(bench: Bench) -> None:
    """Each orientation is measured by itself."""
    bench.write(replace(SMALL, localizer=True, second_orientation=SAGITTAL))
    series = bench.report()[0]
    assert codes(series) == {"localizer", "mixed-orientations"}
    assert [stack["direction"] for stack in series["stacks"]] == ["coronal", "axial", "sagittal"]
    assert message(series, "mixed-orientations") == "images in 3 orientations"


def test_a_leaning_stack_is_found(bench: Bench) -> None:
    """Positions that leave the normal are those of a tilted gantry."""
    bench.write(replace(SMALL, shear=5.0))
    series = bench.report()[0]
    assert codes(series) == {"gantry-tilt"}
    assert series["stacks"][0]["tilt_degrees"] == pytest.approx(14.04, abs=0.01)


@pytest.mark.parametrize(
    ("orientation", "code"),
    [
        ([1, 0, 0, 0.3, 1, 0], "orientation-not-orthonormal"),
        ([0, 0, 0, 0, 0, 0], "orientation-not-orthonormal"),
        (None, "absent-orientation"),
        ([1, 0, 0], "absent-orientation"),
    ],
)
def test_an_orientation_that_is_none_is_found(
    bench: Bench, orientation: list[float] | None, code: str
) -> None:
    """Direction cosines that are absent, too few or at odds are told, and nothing is measured."""
    for path in bench.write():
        bench.edit(path, lambda image: setattr(image, "ImageOrientationPatient", orientation))
    series = bench.report()[0]
    assert code in codes(series)
    assert series["stacks"][0]["slice_spacing_mm"] is None


def mix(image: FileDataset) -> None:
    """Make an image unlike the others of its series in all that should agree."""
    image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    image.Modality = "MR"
    image.FrameOfReferenceUID = "1.2.3.4"
    image.PixelSpacing = ["1", "1"]
    image.RescaleSlope = "2"
    image.Rows, image.Columns = 24, 128
    image.PhotometricInterpretation = "MONOCHROME1"
    image.compress(RLELossless)


def test_instances_that_do_not_match_are_found(bench: Bench) -> None:
    """What should be the same throughout a series and is not has a finding each."""
    bench.edit(bench.write()[0], mix)
    assert codes(bench.report()[0]) == {
        "mixed-frames-of-reference",
        "mixed-modalities",
        "mixed-photometric-interpretations",
        "mixed-pixel-spacings",
        "mixed-rescales",
        "mixed-sizes",
        "mixed-sop-classes",
        "mixed-transfer-syntaxes",
    }


def test_intensities_are_in_rescaled_units(bench: Bench) -> None:
    """The statistics are of HU, not of stored values, and their counts are of all voxels."""
    bench.write()
    intensity = bench.report()[0]["intensity"]
    assert intensity["unit"] == "HU"
    assert intensity["percentiles"]["5"] == pytest.approx(-1000, abs=20)
    assert intensity["percentiles"]["75"] == pytest.approx(20, abs=60)
    assert intensity["values"] == sum(intensity["counts"]) == 8 * 48 * 64
    assert len(intensity["edges"]) == len(intensity["counts"]) + 1


def test_padding_is_not_counted(bench: Bench) -> None:
    """Values that the header calls padding are left out of the statistics."""

    def pad(image: FileDataset) -> None:
        pixels = image.pixel_array.copy()
        pixels[:10] = -2000
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "SS", -2000)

    for path in bench.write():
        bench.edit(path, pad)
    intensity = bench.report()[0]["intensity"]
    assert intensity["values"] == 8 * 38 * 64
    assert intensity["minimum"] > -1100


def test_rescale_slope_0_is_taken_as_1(bench: Bench) -> None:
    """A RescaleSlope of 0 would make all voxels alike, so it is told and not used."""
    for path in bench.write():
        bench.edit(path, lambda image: setattr(image, "RescaleSlope", "0"))
    series = bench.report()[0]
    assert codes(series) == {"rescale-slope-zero"}
    assert series["intensity"]["maximum"] > 0


def test_the_order_of_the_files_does_not_matter_for_the_measures(bench: Bench) -> None:
    """Slices are sorted by where they lie, not by file or number."""
    paths = bench.write(replace(SMALL, orientation=CORONAL))
    names = np.random.default_rng(7).permutation(len(paths))
    for path, name in zip(paths, names, strict=True):
        path.rename(path.with_name(f"{name + 100}.dcm"))
        bench.edit(
            path.with_name(f"{name + 100}.dcm"),
            lambda image, name=name: setattr(image, "InstanceNumber", int(name) + 1),  # type: ignore[misc]
        )
    series = bench.report()[0]
    assert series["findings"] == []
    assert series["stacks"][0]["slice_spacing_mm"] == pytest.approx(20)
