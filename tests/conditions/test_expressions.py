"""Conditions on one attribute: how they are written, and what they say of values."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import keyword_dict

from dicom_adapter.conditions import Series, Unmet, unmet, wanted
from dicom_adapter.model import Operator, Requirements, TagCondition
from dicom_adapter.model.expressions import parse

WRITTEN = {
    "KVP>=100": "KVP >= 100",
    "  KVP   >=  1e2 ": "KVP >= 1e2",
    "0018,0060 = 120": "KVP = 120",
    "(0018, 0060) != -.5": "KVP != -.5",
    "ImageType contains ORIGINAL": "ImageType contains ORIGINAL",
    "PatientPosition in [HFS, 'FFS' , \"a, b\"]": "PatientPosition in HFS, FFS, 'a, b'",
    "PatientPosition in HFS": "PatientPosition in HFS",
    "SeriesDescription matches 'lung*'": "SeriesDescription matches lung*",
    "SeriesDescription = chest, lung": "SeriesDescription = 'chest, lung'",
    'SeriesDescription = "it\'s"': 'SeriesDescription = "it\'s"',
    "SeriesDescription = '<5'": "SeriesDescription = '<5'",
    "ContrastBolusAgent present": "ContrastBolusAgent present",
    "ReferencedImageSequence absent": "ReferencedImageSequence absent",
    "0009,1010 > 3": "0009,1010 > 3",
    "6002,0010 <= 512": "6002,0010 <= 512",
}


@pytest.mark.parametrize(("text", "canonical"), WRITTEN.items())
def test_an_expression_has_one_way_to_be_written(text: str, canonical: str) -> None:
    """However it is written, it is told in one way, and that is read as the same again."""
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@given(
    st.sampled_from(["SeriesDescription", "0009,1010"]),
    st.sampled_from([Operator.EQUAL, Operator.UNEQUAL, Operator.MATCHES, Operator.IN]),
    st.lists(st.text(string.printable, min_size=1, max_size=20), min_size=1, max_size=3),
)
def test_any_value_survives_being_written(name: str, operator: Operator, words: list[str]) -> None:
    """What was taken once, of whatever signs, goes over the wire as it was."""
    text = f"{name} {operator} {', '.join(words)}"
    try:
        condition = parse(text)
    except ValueError:
        return
    assert parse(str(condition)) == condition
    assert condition.operator == operator


@given(st.text(max_size=60))
def test_no_text_makes_it_stumble(text: str) -> None:
    """Whatever is written is a condition, or is refused in words of ours."""
    try:
        condition = parse(text)
    except ValueError:
        return
    assert condition.name in keyword_dict or "," in condition.name


def image(**values: object) -> Dataset:
    """Return an image that says this."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def check(expression: str, *images: Dataset) -> list[Unmet]:
    """Return what images do not meet of an expression."""
    requires = Requirements(several_patients=True, tags=(parse(expression),))
    assert wanted(requires)
    return unmet(requires, [Series("1.1", "1.2.3", images)])


MET = [
    ("KVP >= 100", {"KVP": "100"}),
    ("KVP > 99.9", {"KVP": "100"}),
    ("KVP = 100", {"KVP": "1.0E2"}),
    ("Rows = 5e2", {"Rows": 500}),
    ("KVP != 80", {"KVP": "100"}),
    ("KVP in 80, 100", {"KVP": "100"}),
    ("SeriesNumber <= 0", {"SeriesNumber": 0}),
    ("PixelSpacing < 1", {"PixelSpacing": [0.5, 0.6]}),
    ("ImageType contains original", {"ImageType": ["ORIGINAL", "PRIMARY"]}),
    ("ImageType != DERIVED", {"ImageType": ["ORIGINAL", "PRIMARY"]}),
    ("PatientPosition = hfs", {"PatientPosition": "HFS"}),
    ("SeriesDescription matches lung*", {"SeriesDescription": "Lung 1.0 mm"}),
    ("SeriesDescription matches 'l?ng [[1]*'", {"SeriesDescription": "lung [[1] x"}),
    ("SeriesDescription contains mm", {"SeriesDescription": "Lung 1.0 MM"}),
    ("StudyID = 007", {"StudyID": "007"}),
    ("ContrastBolusAgent present", {"ContrastBolusAgent": "x"}),
    ("ContrastBolusAgent absent", {}),
    ("ContrastBolusAgent absent", {"ContrastBolusAgent": ""}),
    ("ReferencedImageSequence present", {"ReferencedImageSequence": [Dataset()]}),
    ("ReferencedImageSequence absent", {"ReferencedImageSequence": []}),
]


@pytest.mark.parametrize(("expression", "values"), MET)
def test_what_is_so_is_met(expression: str, values: dict[str, object]) -> None:
    """Numbers are compared as numbers, texts without regard to case."""
    assert check(expression, image(**values)) == []


UNMET = [
    ("KVP >= 100", {"KVP": "99.9"}, ">= 100", "99.9"),
    ("KVP < 100", {"KVP": "100"}, "< 100", "100"),
    ("KVP < 100", {}, "< 100", "absent"),
    ("KVP != 100", {}, "!= 100", "absent"),
    ("KVP != 100", {"KVP": "100.0"}, "!= 100", "100.0"),
    ("KVP in 80, 120", {"KVP": "100"}, "in 80, 120", "100"),
    ("PixelSpacing < 0.55", {"PixelSpacing": [0.5, 0.6]}, "< 0.55", "0.5\\0.6"),
    ("ImageType = ORIGINAL", {"ImageType": ["ORIGINAL", "AXIAL"]}, "= ORIGINAL", "ORIGINAL\\AXIAL"),
    ("ImageType contains DERIVED", {"ImageType": ["ORIGINAL"]}, "contains DERIVED", "ORIGINAL"),
    ("SeriesDescription matches ung*", {"SeriesDescription": "lung"}, "matches ung*", "lung"),
    ("SOPClassUID = 1.20", {"SOPClassUID": "1.2"}, "= 1.20", "1.2"),
    ("ContrastBolusAgent present", {}, "present", "absent"),
    ("ContrastBolusAgent absent", {"ContrastBolusAgent": "Omni"}, "absent", "present"),
    (
        "ImageType = A",
        {"ImageType": ["B" * 16] * 4},
        "= A",
        ("B" * 16 + "\\") * 3 + "B" * 10 + "...",
    ),
]


@pytest.mark.parametrize(("expression", "values", "asked", "found"), UNMET)
def test_what_is_otherwise_is_told(
    expression: str, values: dict[str, object], asked: str, found: str
) -> None:
    """The attribute, what is asked of it and what it is are named, and the series."""
    (told,) = check(expression, image(**values))
    name = expression.partition(" ")[0]
    assert told == Unmet("1.2.3", name, asked, found)
    assert str(told) == f"series 1.2.3: {name} is {found}, required is {asked}"


PERSONAL = [
    ("PatientName = DOE^JOHN", {"PatientName": "ROE^JANE"}),
    ("PatientID in 12345, 6789", {"PatientID": "4711"}),
    ("PatientBirthDate = 19700101", {"PatientBirthDate": "19800202"}),
    ("PatientWeight > 70", {"PatientWeight": "69.5"}),
    ("ReferringPhysicianName = DOE", {"ReferringPhysicianName": "ROE"}),
    ("AccessionNumber = A1", {"AccessionNumber": "B2"}),
    ("StudyDate = 20200101", {"StudyDate": "20200202"}),
    ("InstitutionName = A", {"InstitutionName": "B"}),
    ("ImageComments contains x", {"ImageComments": "Mr Roe"}),
]


@pytest.mark.parametrize(("expression", "values"), PERSONAL)
def test_no_patient_is_named(expression: str, values: dict[str, object]) -> None:
    """Of what a patient may be known by, neither value is told: what is, and what is asked for."""
    (told,) = check(expression, image(**values))
    assert told.found == "another value"
    (value,) = values.values()
    assert str(value) not in str(told)
    assert all(word not in str(told) for word in parse(expression).values)
    assert told.condition in str(told)


def test_the_first_instance_that_is_otherwise_is_told() -> None:
    """Every instance must be so; of many that are not, one is enough to say why."""
    images = [image(KVP="120"), image(KVP="90"), image(KVP="80")]
    (told,) = check("KVP >= 100", *images)
    assert told.found == "90"


def test_a_value_that_cannot_be_read_is_told_as_such() -> None:
    """A broken value is there, but nothing can be said of it; no error comes of it."""
    broken = Dataset()
    broken.add_new(0x0009_1010, "UN", b"\xff\xfe\x00")
    assert [u.found for u in check("0009,1010 = 5", broken)] == ["unreadable"]
    assert check("0009,1010 present", broken) == []


def test_a_private_attribute_is_compared_as_it_came() -> None:
    """Without a representation on the wire it is a text, of which a number can be made."""
    private = Dataset()
    private.add_new(0x0009_1010, "UN", b"12 ")
    assert check("0009,1010 > 11", private) == []
    assert check("0009,1010 = 12", private) == []
    (told,) = check("0009,1010 > 12", private)
    assert told == Unmet("1.2.3", "0009,1010", "> what is configured", "another value")


def test_a_condition_is_a_value() -> None:
    """What was parsed is frozen, and can be compared."""
    assert parse("KVP > 1") == TagCondition(0x0018_0060, "KVP", Operator.MORE, ("1",))
