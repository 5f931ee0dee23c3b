"""What a pipeline requires: every mistake is told, and what is left out asks for nothing."""

from collections.abc import Callable

import pytest

from dicom_adapter.config import Settings
from dicom_adapter.model import Requirements

Configure = Callable[[str], Settings]
Mistakes = Callable[[str], list[str]]

OPERATORS = "=, !=, <, <=, >, >=, contains, matches, in, present, absent"
OF_TEXT = "=, !=, contains, matches, in, present, absent"
OF_NUMBER = "=, !=, <, <=, >, >=, in, present, absent"

WRONG = {
    "modality: CT": "modality: must be a list, not 'CT'",
    "modality: []": "modality: would accept nothing: leave it out to accept everything",
    "modality: ['C*']": (
        "modality[0]: must be a code as it stands in the image, 1 to 16 letters, digits, spaces "
        "or underscores, not 'C*'"
    ),
    "sop_class: [CTImageStorag]": (
        "sop_class[0]: 'CTImageStorag' is no storage SOP class: give its UID, or its keyword such "
        "as CTImageStorage; did you mean 'CTImageStorage'?"
    ),
    "transfer_syntax: [ExplicitLittleEndian]": (
        "transfer_syntax[0]: 'ExplicitLittleEndian' is no transfer syntax: give its UID, or its "
        "keyword such as ExplicitVRLittleEndian; did you mean 'ExplicitVRLittleEndian'?"
    ),
    "transfer_syntax: [1..2]": (
        "transfer_syntax[0]: must be a UID: numbers without leading zeros, joined by dots, at "
        "most 64 characters, not '1..2'"
    ),
    "min_instances: 0": "min_instances: must be at least 1, not 0",
    "min_instances: 3, max_instances: 2": (
        "max_instances: must be at least min_instances, which is 3, or nothing could meet it"
    ),
    "min_series: 3, max_series: 2": (
        "max_series: must be at least min_series, which is 3, or nothing could meet it"
    ),
    "patients: two": "patients: must be one or several, not 'two'",
    "slice_thickness: {min: 3, max: 1}": (
        "slice_thickness.max: must be at least min, which is 3, or nothing could meet it"
    ),
    "slice_thickness: {max: 3mm}": "slice_thickness.max: must be a number, not '3mm'",
    "slice_thickness: {max: -1}": "slice_thickness.max: must be at least 0, not -1",
    "slice_spacing: {max: .inf}": "slice_spacing.max: must be a number with an end, not .inf",
    "slice_spacing: 3": "slice_spacing: must be a mapping of keys and values, not 3",
    "slice_spacing: {most: 3}": ("slice_spacing.most: is an unknown key; allowed are min, max"),
    "orientation: [transversal]": (
        "orientation[0]: must be axial, sagittal, coronal or oblique, not 'transversal'"
    ),
    "contrast: sometimes": "contrast: must be true or false, not 'sometimes'",
    "modalities: [CT]": (
        "modalities: is an unknown key; did you mean 'modality'?; allowed are modality, "
        "sop_class, transfer_syntax, body_part, min_instances, max_instances, min_series, "
        "max_series, patients, slice_thickness, slice_spacing, orientation, contrast, tags"
    ),
    "tags: [KVP]": (
        "tags[0]: must be an attribute, an operator and a value, such as KVP >= 100 or ImageType "
        f"contains ORIGINAL, not 'KVP'; operators are {OPERATORS}"
    ),
    "tags: ['__import__(\"os\")']": (
        "tags[0]: must be an attribute, an operator and a value, such as KVP >= 100 or ImageType "
        f"contains ORIGINAL, not '__import__(\"os\")'; operators are {OPERATORS}"
    ),
    "tags: [KVP >= 100, RepetitonTime < 500]": (
        "tags[1]: 'RepetitonTime' is no keyword of the data dictionary: give one, or a tag such "
        "as 0018,0060; did you mean 'RepetitionTime'?"
    ),
    "tags: ['0018,FFFE present']": "tags[0]: '0018,FFFE' is no tag of the data dictionary",
    "tags: [PixelData present]": "tags[0]: 'PixelData' is no attribute that is looked at",
    "tags: [TransferSyntaxUID = 1.2]": (
        "tags[0]: 'TransferSyntaxUID' is no attribute that is looked at; use transfer_syntax"
    ),
    "tags: [KVP > high]": "tags[0]: KVP > needs a number, not 'high'",
    "tags: [KVP >]": (
        "tags[0]: '>' needs one value, in quotes where there are signs in it, not ''"
    ),
    "tags: [KVP contains 1]": (
        f"tags[0]: KVP is a number, which 'contains' cannot compare: use one of {OF_NUMBER}"
    ),
    "tags: [ImageType < 3]": (
        f"tags[0]: ImageType is a text, which '<' cannot compare: use one of {OF_TEXT}"
    ),
    "tags: [KVP present 3]": "tags[0]: 'present' is said without a value, not with '3'",
    "tags: [\"PatientPosition = ''\"]": (
        "tags[0]: '=' needs a value of letters, digits and signs; see also absent"
    ),
    "tags: [ReferencedImageSequence = 3]": (
        "tags[0]: ReferencedImageSequence has no value to compare: use present or absent"
    ),
    "tags: ['0009,1010 < x']": "tags[0]: 0009,1010 < needs a number, not 'x'",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items(), ids=list(WRONG))
def test_one_mistake(mistakes: Mistakes, text: str, said: str) -> None:
    """Each of these is refused, with exactly these words."""
    found = mistakes(f"pipelines:\n  a:\n    command: [x]\n    requires: {{{text}}}\n")
    assert found == [f"4: pipelines.a.requires.{said}"]


def test_every_mistake_is_told_at_once(mistakes: Mistakes) -> None:
    """Each wrong value has its own line of the file, and none hides another."""
    found = mistakes(
        """\
pipelines:
  a:
    command: [x]
    requires:
      modality: [CT]
      min_instances: many
      tags:
        - KVP >= 100
        - KVP >= low
      slice_spacing: {min: -1}
"""
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["6", "pipelines.a.requires.min_instances"],
        ["9", "pipelines.a.requires.tags[1]"],
        ["10", "pipelines.a.requires.slice_spacing.min"],
    ]


@pytest.mark.parametrize("text", ["", "requires: null,", "requires: ,"])
def test_s24_a_pipeline_need_not_declare_conditions(configured: Configure, text: str) -> None:
    """Without `requires` a pipeline asks for nothing at all."""
    found = configured(f"pipelines: {{a: {{{text} command: [x]}}}}")
    assert found.pipelines["a"].requires is None


def test_what_is_left_out_asks_for_nothing(configured: Configure) -> None:
    """Of what may be declared each is free of choice; an item has series of one patient."""
    found = configured("pipelines: {a: {command: [x], requires: {}}}").pipelines["a"].requires
    assert found is not None
    assert found.frozen == Requirements()
    assert not found.frozen.several_patients
