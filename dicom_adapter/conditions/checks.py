"""Checks series against what a pipeline requires, and says of each that is otherwise why.

What is said goes into logs and onto screens: of the images it has technical values and UIDs alone.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from pydicom import Dataset
from pydicom.uid import UID

from dicom_adapter.conditions import expressions, geometry
from dicom_adapter.conditions.frames import PER_FRAME, SHARED, Frame, frames_of, tag_of
from dicom_adapter.model import Bounds, Operator, Requirements, TagCondition

ABSENT = "absent"
UNREADABLE = "unreadable"
#: So many lines are told of one submission; a thousand more would tell nobody more.
MOST_LINES = 20

_LONGEST_VALUE = 64
_LONGEST_LINE = 500
# Millimetres: what is computed of rounded numbers is no more exact.
_TOLERANCE = 0.001
_NO_AGENT = frozenset({"", "NO", "NONE"})


@dataclass(frozen=True)
class Series:
    """A series, or a part of it, its instances in order, with the attributes that are `wanted`."""

    study_instance_uid: str
    series_instance_uid: str
    instances: Sequence[Dataset]


@dataclass(frozen=True)
class Unmet:
    """A condition that a series does not meet, what it asks for, and what there is."""

    #: Empty where it is about all of them together.
    series_instance_uid: str
    #: As it is called in the configuration, or the attribute of an expression.
    condition: str
    wanted: str
    found: str

    def __str__(self) -> str:
        series = self.series_instance_uid
        what = _SAID.get(self.condition, self.condition.replace("_", " "))
        who = f"series {series}" if series else "all series"
        return f"{who}: {what} is {self.found}, required is {self.wanted}"


_SAID = {
    "min_instances": "number of instances",
    "max_instances": "number of instances",
    "min_series": "number of series",
    "max_series": "number of series",
    "patients": "patient",
    "sop_class": "SOP class",
}


def wanted(requirements: Requirements) -> tuple[int, ...]:
    """Return the tags that must be read of each instance; without any, no file need be opened."""
    keywords = []
    if requirements.modality:
        keywords.append("Modality")
    # A transfer syntax stands in the file's header, which comes with whatever is read.
    if requirements.sop_class or requirements.transfer_syntax:
        keywords.append("SOPClassUID")
    if requirements.body_part:
        keywords.append("BodyPartExamined")
    if not requirements.several_patients:
        keywords += ["PatientID", "IssuerOfPatientID"]
    if requirements.slice_thickness.is_limited:
        keywords.append("SliceThickness")
    if requirements.orientation or requirements.slice_spacing.is_limited:
        keywords.append("ImageOrientationPatient")
    if requirements.slice_spacing.is_limited:
        keywords.append("ImagePositionPatient")
    if requirements.contrast is not None:
        keywords += ["ContrastBolusAgent", "ContrastBolusAgentSequence"]
    tags = [*map(tag_of, keywords), *(condition.tag for condition in requirements.tags)]
    if _asks_of_frames(requirements):
        tags += [SHARED, PER_FRAME]
    return tuple(dict.fromkeys(tags))


def _asks_of_frames(requirements: Requirements) -> bool:
    return bool(
        requirements.slice_thickness.is_limited
        or requirements.slice_spacing.is_limited
        or requirements.orientation
        or requirements.contrast is not None
        or requirements.tags
    )


def unmet(requirements: Requirements, series: Sequence[Series]) -> list[Unmet]:
    """Return what the series of one item of a job do not meet; nothing where all is met.

    Of each condition the first value of a series is told that does not meet it.
    """
    found = [*_numbered("", "series", len(series), requirements.series)]
    if not requirements.several_patients:
        found += _of_patients(series)
    for one in series:
        found += _of_series(requirements, one)
    return found


def told(found: Sequence[Unmet]) -> tuple[str, ...]:
    """Return what is not met in lines for people, and how many more there are."""
    lines = [_cut(str(one), _LONGEST_LINE) for one in found[:MOST_LINES]]
    more = len(found) - len(lines)
    return (*lines, f"and {more} more") if more else tuple(lines)


def _of_series(requirements: Requirements, series: Series) -> Iterator[Unmet]:
    uid, instances = series.series_instance_uid, series.instances
    yield from _one_of(series, "modality", requirements.modality, _text("Modality"))
    yield from _one_of(series, "sop_class", requirements.sop_class, _text("SOPClassUID"))
    yield from _one_of(series, "transfer_syntax", requirements.transfer_syntax, _transfer_syntax)
    yield from _one_of(series, "body_part", requirements.body_part, _text("BodyPartExamined"))
    yield from _numbered(uid, "instances", len(instances), requirements.instances)
    if not _asks_of_frames(requirements):
        return
    frames = list(chain.from_iterable(map(frames_of, instances)))
    yield from _thickness(uid, requirements.slice_thickness, frames)
    yield from _spacing(uid, requirements.slice_spacing, frames)
    yield from _orientation(uid, requirements.orientation, frames)
    if requirements.contrast is not None:
        yield from _contrast(uid, frames, is_wanted=requirements.contrast)
    for condition in requirements.tags:
        yield from _tag(uid, condition, frames)


def _numbered(uid: str, what: str, count: int, span: Bounds) -> Iterator[Unmet]:
    if span.min is not None and count < span.min:
        yield Unmet(uid, f"min_{what}", f"at least {span.min}", str(count))
    if span.max is not None and count > span.max:
        yield Unmet(uid, f"max_{what}", f"at most {span.max}", str(count))


def _of_patients(series: Sequence[Series]) -> Iterator[Unmet]:
    first: tuple[tuple[str, str], str] | None = None
    for one in series:
        for instance in one.instances:
            patient = _patient(one, instance)
            first = first or (patient, one.series_instance_uid)
            if patient != first[0]:
                found = f"another than that of series {first[1]}"
                yield Unmet(one.series_instance_uid, "patients", "one for all series", found)
                break


def _patient(series: Series, instance: Dataset) -> tuple[str, str]:
    ids = _text("PatientID")(instance), _text("IssuerOfPatientID")(instance)
    # Without an ID, nobody can tell whether two studies are of one patient.
    return ids if ids[0] else ("", series.study_instance_uid)


def _one_of(
    series: Series, condition: str, allowed: Collection[str], read: Callable[[Dataset], str]
) -> Iterator[Unmet]:
    if not allowed:
        return
    folded = {value.casefold() for value in allowed}
    for instance in series.instances:
        value = read(instance)
        if value.casefold() not in folded:
            names = " or ".join(map(_name, allowed))
            yield Unmet(series.series_instance_uid, condition, names, _name(value) or ABSENT)
            return


def _text(keyword: str) -> Callable[[Dataset], str]:
    tag = tag_of(keyword)

    def read(instance: Dataset) -> str:
        values = Frame((instance,)).values(tag)
        return UNREADABLE if values is None else "\\".join(map(str, values))

    return read


def _transfer_syntax(instance: Dataset) -> str:
    return str(getattr(getattr(instance, "file_meta", None), "TransferSyntaxUID", ""))


def _name(value: str) -> str:
    """Return the keyword of a UID that has one, and of anything else what can be shown of it."""
    uid = UID(value) if value[:1].isdigit() else None
    return _shown((uid.keyword or value) if uid is not None else value)


def _shown(value: object) -> str:
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return _cut(text, _LONGEST_VALUE)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _is_within(value: float, span: Bounds) -> bool:
    # What is no number is within nothing, nor is what is endless.
    least = span.min is None or value >= span.min - _TOLERANCE
    return math.isfinite(value) and least and (span.max is None or value <= span.max + _TOLERANCE)


def _length(value: float) -> str:
    return f"{value:.5g} mm"


def _thickness(uid: str, span: Bounds, frames: Sequence[Frame]) -> Iterator[Unmet]:
    if not span.is_limited:
        return
    for frame in frames:
        values = frame.numbers("SliceThickness")
        if values and all(_is_within(value, span) for value in values):
            continue
        missing = UNREADABLE if values is None else ABSENT
        found = _length(values[0]) if values else missing
        yield Unmet(uid, "slice_thickness", span.said(" mm"), found)
        return


def _spacing(uid: str, span: Bounds, frames: Sequence[Frame]) -> Iterator[Unmet]:
    if not span.is_limited:
        return
    gaps = geometry.gaps_of(frames)
    if isinstance(gaps, str):
        yield Unmet(uid, "slice_spacing", span.said(" mm"), gaps)
        return
    for gap in gaps:
        if not _is_within(gap, span):
            yield Unmet(uid, "slice_spacing", span.said(" mm"), _length(gap))
            return


def _orientation(uid: str, allowed: Collection[str], frames: Sequence[Frame]) -> Iterator[Unmet]:
    if not allowed:
        return
    for frame in frames:
        found = geometry.orientation_of(frame)
        if found not in allowed:
            yield Unmet(uid, "orientation", " or ".join(allowed), found or ABSENT)
            return


def _contrast(uid: str, frames: Sequence[Frame], *, is_wanted: bool) -> Iterator[Unmet]:
    # Once for a series: also of one that was scanned while the agent came in.
    if any(map(_shows_agent, frames)) != is_wanted:
        words = {True: "present", False: ABSENT}
        yield Unmet(uid, "contrast", words[is_wanted], words[not is_wanted])


def _shows_agent(frame: Frame) -> bool:
    names = frame.values(tag_of("ContrastBolusAgent")) or ()
    return any(str(name).upper() not in _NO_AGENT for name in names) or any(
        frame.values(tag_of(keyword))
        for keyword in ("ContrastBolusAgentSequence", "ContrastBolusUsageSequence")
    )


def _tag(uid: str, condition: TagCondition, frames: Sequence[Frame]) -> Iterator[Unmet]:
    for frame in frames:
        values = frame.values(condition.tag)
        if not _is_met(condition, values):
            found = _found(condition, values)
            yield Unmet(uid, condition.name, _asked(condition), found)
            return


def _is_met(condition: TagCondition, values: tuple[object, ...] | None) -> bool:
    if values is None:
        return condition.operator == Operator.PRESENT
    if not values:
        return condition.operator == Operator.ABSENT
    return expressions.holds(condition, values)


def _found(condition: TagCondition, values: tuple[object, ...] | None) -> str:
    if values is None:
        return UNREADABLE
    if not values:
        return ABSENT
    if condition.operator == Operator.ABSENT:
        return "present"
    told = expressions.may_be_told(condition)
    return _shown("\\".join(map(str, values))) if told else "another value"


def _asked(condition: TagCondition) -> str:
    if not condition.values or expressions.may_be_told(condition):
        return condition.compared
    # Whoever is named there is a patient as well.
    return f"{condition.operator} what is configured"
