"""What series must be, over real images and phantoms; real numbers are of what the files say."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

from dicom_adapter.conditions import Series, Unmet, told, unmet, wanted
from dicom_adapter.model import Bounds, Plane, Requirements
from dicom_adapter.model.expressions import parse
from dicom_adapter.phantom import PhantomSeries, write_series

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
#: Ten slices of 5 mm, each 5 mm from the next.
SERIES = PhantomSeries(slices=10, rows=16, columns=16, slice_spacing=5.0)

# Series of several patients are another matter than what is asked of each.
ANYONE = Requirements(several_patients=True)


def read(path: Path | str, requires: Requirements) -> Dataset:
    """Return what is looked at of a file, and nothing else."""
    return dcmread(path, stop_before_pixels=True, specific_tags=list(wanted(requires)) or None)


def of_file(name: str, requires: Requirements) -> list[Unmet]:
    """Return what one of pydicom's own images does not meet."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return unmet(requires, [Series("1.1", "1.2.3", [read(path, requires)])])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of a CT series."""
    return write_series(tmp_path_factory.mktemp("phantom"), SERIES)


def of_phantom(paths: Sequence[Path], requires: Requirements) -> list[Unmet]:
    """Return what a phantom does not meet."""
    return unmet(requires, [Series("1.1", "1.2.3", [read(path, requires) for path in paths])])


def test_s24_without_conditions_any_series_will_do(phantom: list[Path]) -> None:
    """What asks for nothing is met by whatever comes, and no file need be read for it."""
    assert wanted(ANYONE) == ()
    assert unmet(ANYONE, [Series("1.1", "1.2", [Dataset()]), Series("1.3", "1.4", [])]) == []
    assert of_phantom(phantom, Requirements()) == []


def test_s25_the_modality(phantom: list[Path]) -> None:
    """A series of another modality is told with the one that it has, and the series."""
    requires = replace(ANYONE, modality=("CT",))
    assert of_phantom(phantom, requires) == []
    (said,) = of_file("MR_small.dcm", requires)
    assert said == Unmet("1.2.3", "modality", "CT", "MR")
    assert str(said) == "series 1.2.3: modality is MR, required is CT"
    assert of_file("MR_small.dcm", replace(ANYONE, modality=("CT", "MR"))) == []


FILES = [
    ("CT_small.dcm", {"sop_class": (CT,)}, None),
    (
        "MR_small.dcm",
        {"sop_class": (CT,)},
        "SOP class is MRImageStorage, required is CTImageStorage",
    ),
    ("CT_small.dcm", {"transfer_syntax": (ExplicitVRLittleEndian,)}, None),
    (
        "JPEG2000.dcm",
        {"transfer_syntax": (ExplicitVRLittleEndian, "1.2.3")},
        "transfer syntax is JPEG2000, required is ExplicitVRLittleEndian or 1.2.3",
    ),
    ("CT_small.dcm", {"body_part": ("CHEST",)}, "body part is absent, required is CHEST"),
    ("MR_small.dcm", {"slice_thickness": Bounds(0.8, 0.8)}, None),
    (
        "CT_small.dcm",
        {"slice_thickness": Bounds(None, 3.0)},
        "slice thickness is 5 mm, required is at most 3 mm",
    ),
    (
        "MR_small.dcm",
        {"slice_thickness": Bounds(1.0, 3.0)},
        "slice thickness is 0.8 mm, required is 1 to 3 mm",
    ),
    (
        "rtplan.dcm",
        {"slice_thickness": Bounds(1.0)},
        "slice thickness is absent, required is at least 1 mm",
    ),
    ("CT_small.dcm", {"orientation": (Plane.AXIAL,)}, None),
    (
        "CT_small.dcm",
        {"orientation": (Plane.CORONAL,)},
        "orientation is axial, required is coronal",
    ),
    (
        "rtplan.dcm",
        {"orientation": (Plane.AXIAL,)},
        "orientation is absent, required is axial",
    ),
    ("CT_small.dcm", {"contrast": True}, None),
    ("CT_small.dcm", {"contrast": False}, "contrast is present, required is absent"),
    ("MR_small.dcm", {"contrast": True}, "contrast is absent, required is present"),
    ("MR_small.dcm", {"contrast": False}, None),
    (
        "CT_small.dcm",
        {"slice_spacing": Bounds(1.0)},
        "slice spacing is of a single slice, required is at least 1 mm",
    ),
    (
        "CT_small.dcm",
        {"instances": Bounds(20)},
        "number of instances is 1, required is at least 20",
    ),
    (
        "MR_small.dcm",
        {"tags": (parse("RepetitionTime < 500"),)},
        "RepetitionTime is 4000.0000, required is < 500",
    ),
    ("MR_small.dcm", {"tags": (parse("RepetitionTime >= 4000"),)}, None),
]


@pytest.mark.parametrize(("file", "asked", "said"), FILES)
def test_s25_each_condition_over_real_images(
    file: str, asked: dict[str, object], said: str | None
) -> None:
    """Each condition is met by a real image, or told with what that has instead."""
    found = of_file(file, replace(ANYONE, **asked))  # type: ignore[arg-type]
    assert [str(one) for one in found] == ([] if said is None else [f"series 1.2.3: {said}"])


def test_counts_of_instances_and_series(phantom: list[Path]) -> None:
    """Instances are counted in each series, series in each item."""
    requires = replace(ANYONE, instances=Bounds(5, 8), series=Bounds(2, 2))
    images = [read(path, requires) for path in phantom]
    one, two, three = (
        Series("1.1", uid, images[:count]) for uid, count in (("1.2", 10), ("1.3", 4), ("1.4", 6))
    )
    assert unmet(requires, [three, three]) == []
    assert unmet(requires, [one, two, three]) == [
        Unmet("", "max_series", "at most 2", "3"),
        Unmet("1.2", "max_instances", "at most 8", "10"),
        Unmet("1.3", "min_instances", "at least 5", "4"),
    ]
    (said,) = unmet(requires, [three])
    assert str(said) == "all series: number of series is 1, required is at least 2"


def test_series_of_several_patients() -> None:
    """Only what says so takes several patients; an issuer or a study may tell them apart."""

    def series(uid: str, patient: str, issuer: str = "", study: str = "1.1") -> Series:
        image = Dataset()
        image.PatientID, image.IssuerOfPatientID = patient, issuer
        return Series(study, uid, [image])

    alone = Requirements()
    assert unmet(alone, [series("1.2", "A"), series("1.3", "A "), series("1.4", "A")]) == []
    assert unmet(alone, [series("1.2", ""), series("1.3", "")]) == []
    found = unmet(alone, [series("1.2", "A"), series("1.3", "B"), series("1.4", "A", "X")])
    assert [str(one) for one in found] == [
        f"series {uid}: patient is another than that of series 1.2, required is one for all series"
        for uid in ("1.3", "1.4")
    ]
    assert len(unmet(alone, [series("1.2", ""), series("1.3", "", study="1.9")])) == 1
    assert unmet(ANYONE, [series("1.2", "A"), series("1.3", "B")]) == []
    mixed = Series("1.1", "1.2", [*series("1", "A").instances, *series("1", "B").instances])
    assert [one.condition for one in unmet(alone, [mixed])] == ["patients"]


def test_slice_spacing_is_that_of_positions(phantom: list[Path]) -> None:
    """Neighbours are found by position, in whatever order they come; a gap is a large distance."""
    requires = replace(ANYONE, slice_spacing=Bounds(4.9, 5.1))
    assert of_phantom(phantom, requires) == []
    assert of_phantom(phantom[::-1] + phantom[:3], requires) == []
    (said,) = of_phantom([*phantom[:4], *phantom[5:]], requires)
    assert said == Unmet("1.2.3", "slice_spacing", "4.9 to 5.1 mm", "10 mm")
    (said,) = of_phantom([*phantom[5:], *phantom[3::-1]], requires)
    assert said.found == "10 mm"
    (said,) = of_phantom(phantom, replace(ANYONE, slice_spacing=Bounds(5.1)))
    assert said.found == "5 mm"
    # What is computed of rounded positions is allowed to be a little off.
    assert of_phantom(phantom, replace(ANYONE, slice_spacing=Bounds(5.0005, 5.0005))) == []


def plane(cosines: Sequence[float], position: Sequence[float] = (0, 0, 0)) -> Dataset:
    """Return a slice that lies so."""
    image = Dataset()
    image.ImageOrientationPatient = list(cosines)
    image.ImagePositionPatient = list(position)
    return image


PLANES = [
    ((1, 0, 0, 0, 1, 0), "axial"),
    ((0, 1, 0, 0, 0, -1), "sagittal"),
    ((1, 0, 0, 0, 0, -1), "coronal"),
    # Tilted by 30 degrees, as the gantry is for a head; and by 45.
    ((1, 0, 0, 0, 0.866, 0.5), "axial"),
    ((1, 0, 0, 0, 0.7071, 0.7071), "oblique"),
    ((1, 0, 0, 1, 0, 0), "absent"),
    ((1, 0, 0, 0, 1), "absent"),
]


@pytest.mark.parametrize(("cosines", "lies"), PLANES)
def test_how_a_slice_lies(cosines: tuple[float, ...], lies: str) -> None:
    """The plane is that whose axis the slice is seen along; between them it is oblique."""
    series = [Series("1.1", "1.2.3", [plane(cosines)])]
    for orientation in Plane:
        found = unmet(replace(ANYONE, orientation=(orientation,)), series)
        assert [one.found for one in found] == ([] if orientation == lies else [lies])


def test_slices_along_an_oblique_axis_and_in_several_planes() -> None:
    """Spacing is measured along the normal; slices that are not parallel have none."""
    requires = replace(ANYONE, slice_spacing=Bounds(1.9, 2.1))
    tilted = (1, 0, 0, 0, 0.7071, 0.7071)
    slices = [plane(tilted, (0, -1.4142 * n, 1.4142 * n)) for n in range(4)]
    assert unmet(requires, [Series("1.1", "1.2", slices)]) == []
    scout = [plane((1, 0, 0, 0, 1, 0), (0, 0, 2 * n)) for n in range(2)]
    (said,) = unmet(requires, [Series("1.1", "1.2", [*scout, plane((0, 1, 0, 0, 0, -1))])])
    assert said.found == "of slices that are not parallel"


def enhanced(
    positions: Sequence[float], thickness: float | None, frame_thickness: float | None = None
) -> Dataset:
    """Return an enhanced multi-frame image: its frames share a plane, each has its position."""

    def group(**macros: dict[str, object]) -> Dataset:
        made = Dataset()
        for name, values in macros.items():
            item = Dataset()
            for keyword, value in values.items():
                setattr(item, keyword, value)
            setattr(made, name, [item])
        return made

    image = Dataset()
    image.Modality = "CT"
    shared: dict[str, dict[str, object]] = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "CTExposureSequence": {"ExposureModulationType": "NONE"},
        "ContrastBolusUsageSequence": {"ContrastBolusAgentNumber": 1},
    }
    if thickness is not None:
        shared["PixelMeasuresSequence"] = {"SliceThickness": thickness}
    image.SharedFunctionalGroupsSequence = [group(**shared)]
    frames = []
    for number, position in enumerate(positions):
        own: dict[str, dict[str, object]] = {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, position]}
        }
        if frame_thickness is not None and number == len(positions) - 1:
            own["PixelMeasuresSequence"] = {"SliceThickness": frame_thickness}
        frames.append(group(**own))
    image.PerFrameFunctionalGroupsSequence = frames
    return image


def of_image(image: Dataset, **asked: object) -> list[Unmet]:
    """Return what one image does not meet."""
    requires = replace(ANYONE, **asked)  # type: ignore[arg-type]
    return unmet(requires, [Series("1.1", "1.2.3", [image])])


def test_frames_of_an_enhanced_image_count_as_slices() -> None:
    """Thickness, spacing, orientation and contrast are looked for in the functional groups."""
    image = enhanced([0, 2, 4, 6], 2.0)
    asked = {
        "slice_thickness": Bounds(2, 2),
        "slice_spacing": Bounds(2, 2),
        "orientation": (Plane.AXIAL,),
        "contrast": True,
        "tags": (parse("ExposureModulationType = NONE"), parse("SliceThickness = 2")),
    }
    assert of_image(image, **asked) == []
    (said,) = of_image(enhanced([0, 2, 6], 2.0), slice_spacing=Bounds(None, 2))
    assert said.found == "4 mm"
    (said,) = of_image(enhanced([0, 2], None), slice_thickness=Bounds(None, 2))
    assert said.found == "absent"


def test_a_number_without_end_meets_no_bound() -> None:
    """Also where there is no upper one."""
    image = Dataset()
    image.SliceThickness, image.KVP = "1E400", "1E400"
    (said,) = of_image(image, slice_thickness=Bounds(1))
    assert said.condition == "slice_thickness"
    (said,) = of_image(image, tags=(parse("KVP > 100"),))
    assert said.found == "1E400"


def test_what_a_frame_says_itself_goes_before_what_is_shared() -> None:
    """One frame that is otherwise is enough; and instances are still counted as instances."""
    image = enhanced([0, 2, 4], 2.0, frame_thickness=3.0)
    (said,) = of_image(image, slice_thickness=Bounds(None, 2))
    assert said.found == "3 mm"
    (said,) = of_image(image, instances=Bounds(3))
    assert said == Unmet("1.2.3", "min_instances", "at least 3", "1")


def test_what_is_wanted_is_all_that_is_looked_at(phantom: list[Path]) -> None:
    """With the wanted attributes alone the same is found as with all of them."""
    requires = Requirements(
        modality=("MR",),
        sop_class=(MR,),
        transfer_syntax=("1.2.3",),
        body_part=("FOOT",),
        instances=Bounds(11),
        slice_thickness=Bounds(7),
        slice_spacing=Bounds(7),
        orientation=(Plane.CORONAL,),
        contrast=True,
        tags=(parse("KVP < 1"), parse("SeriesDescription = x")),
    )
    whole = unmet(requires, [Series("1.1", "1.2.3", [dcmread(path) for path in phantom])])
    assert of_phantom(phantom, requires) == whole
    assert len(whole) == 11
    for image in (read(path, requires) for path in phantom):
        assert "PatientName" not in image
        assert "PixelData" not in image


def test_very_much_that_is_not_met_is_told_in_a_few_lines() -> None:
    """A thousand series give twenty lines, and how many more there are."""
    series = [Series("1.1", f"1.2.{n}", [Dataset()]) for n in range(1000)]
    lines = told(unmet(replace(ANYONE, modality=("CT",)), series))
    assert lines[0] == "series 1.2.0: modality is absent, required is CT"
    assert len(lines) == 21
    assert lines[-1] == "and 980 more"
    assert told([]) == ()
    (line,) = told([Unmet("1.2", "modality", "A" * 2000, "MR")])
    assert len(line) == 500
