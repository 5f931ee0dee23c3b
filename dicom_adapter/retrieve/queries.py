"""Asks a source for what people look for: PS3.4 section C.6.2 (Study Root)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from dicom_adapter.attributes import criteria_of, meets
from dicom_adapter.errors import InvalidArgumentError, NotFoundError, SourceError
from dicom_adapter.model import (
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    Criterion,
    Matching,
    Span,
)
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.retrieve.archive import (
    UIDS,
    Archive,
    Attributes,
    ElsewhereInstance,
    ElsewhereSeries,
    Level,
)

_STUDY, _SERIES = "StudyInstanceUID", "SeriesInstanceUID"
_MODALITIES = "ModalitiesInStudy"
_COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_STUDY_KEYS = (*STUDY_ATTRIBUTES, _STUDY, _MODALITIES)
# Of an instance, not of a series, where a source is asked.
_SERIES_KEYS = (*(key for key in SERIES_ATTRIBUTES if key != "SOPClassUID"), _SERIES)
# What a source matches studies by (PS3.4 table C.6-5, types R and U); other keys it may ignore.
_SURE = frozenset(
    {
        "PatientID",
        "PatientName",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        _STUDY,
        # Matched by, and not always told (PS3.4 section C.3.4).
        _MODALITIES,
    }
)
# More questions for one call are no choice of anybody's.
_MOST_QUESTIONS = 100
#: So many answers are read to a question; a study has less series, and a series less instances.
MOST_ANSWERS = 100_000


@dataclass(frozen=True)
class ElsewhereStudy:
    """A study that a source has; None where it does not say how many."""

    uid: str = field(repr=False)
    attributes: Attributes = field(repr=False)
    modalities: tuple[str, ...]
    series: int | None
    instances: int | None


@dataclass(frozen=True)
class Wanted:
    """What studies, and what series of them, are wanted."""

    studies: tuple[Criterion, ...]
    series: tuple[Criterion, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> "Wanted":
        """Return what attributes and their values mean.

        Raises:
            InvalidArgumentError: one is none that a source is asked by, or none is of studies.
        """
        criteria = criteria_of(pairs)
        for one in criteria:
            if one.keyword not in (*_STUDY_KEYS, *_SERIES_KEYS):
                raise InvalidArgumentError("attributes", f"no source is asked by {one.keyword}")
        studies = tuple(one for one in criteria if one.keyword in _STUDY_KEYS)
        if not studies:
            # All that it has would be looked through.
            raise InvalidArgumentError(
                "attributes", "name at least one of studies, such as StudyInstanceUID or PatientID"
            )
        return cls(studies, tuple(one for one in criteria if one not in studies))


def studies_of(archive: Archive, wanted: Wanted) -> Iterator[ElsewhereStudy]:
    """Yield the studies that match; raises as `Archive.find` does."""
    # A study of which series are wanted has at least their modality.
    modalities = [
        Criterion(_MODALITIES, Matching.TEXT, one.values)
        for one in wanted.series
        if one.keyword == "Modality"
    ]
    criteria = (*wanted.studies, *modalities)
    for found in _find(archive, Level.STUDY, {}, criteria, (*_STUDY_KEYS, *_COUNTS)):
        told = {key: found[key] for key in STUDY_ATTRIBUTES if key in found}
        series, instances = (_count(found.get(key, "")) for key in _COUNTS)
        modality = tuple(filter(None, found.get(_MODALITIES, "").split("\\")))
        yield ElsewhereStudy(found[_STUDY], told, modality, series, instances)


def series_of(archive: Archive, study: str, wanted: Wanted) -> list[ElsewhereSeries]:
    """Return the series of a study that match, with their instances; raises as `find` does.

    Of one study all series are asked for, and chosen of here: as what is kept is searched, and
    whatever the source matches by.

    Raises:
        NotFoundError: the source has none.
    """
    named = {_STUDY: study}
    told = _find(archive, Level.SERIES, named, (), _SERIES_KEYS)
    series = [one[_SERIES] for one in _met(archive, told, wanted.series)]
    if not series:
        which = "such series" if wanted.series else "series"
        raise NotFoundError(f"{archive.name} has no {which} of the study {study}")
    return [ElsewhereSeries(study, uid, _instances(archive, study, uid)) for uid in series]


def _instances(archive: Archive, study: str, series: str) -> tuple[ElsewhereInstance, ...]:
    found = _find(
        archive,
        Level.IMAGE,
        {_STUDY: study, _SERIES: series},
        (),
        ("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
    )
    return tuple(
        ElsewhereInstance(one["SOPInstanceUID"], one.get("SOPClassUID", "")) for one in found
    )


def _find(
    archive: Archive,
    level: Level,
    named: Attributes,
    criteria: Sequence[Criterion],
    returned: Sequence[str],
) -> list[Attributes]:
    """Return what matches, each once: also by keys that the source has not matched by."""
    unsure = [one for one in criteria if one.keyword not in _SURE]
    seen: set[str] = set()
    told = []
    for question in _questions(criteria):
        keys = {**dict.fromkeys(returned, ""), **named, **question}
        for number, found in enumerate(archive.find(level, keys)):
            if number >= MOST_ANSWERS:
                raise SourceError(
                    f"{archive.name} answers with more than {MOST_ANSWERS}: ask for less"
                )
            uid = found.get(UIDS[level], "")
            # Some ignore even the UIDs that they are asked by.
            is_meant = all(found.get(key, asked) == asked for key, asked in named.items())
            if is_meant and is_uid(uid) and uid not in seen:
                seen.add(uid)
                told.append(found)
    return _met(archive, told, unsure)


def _met(
    archive: Archive, told: Sequence[Attributes], criteria: Sequence[Criterion]
) -> list[Attributes]:
    """Return what meets criteria of what a source has told.

    Raises:
        NotFoundError: it tells one of these attributes of nothing: by that nobody can choose.
    """
    for one in criteria:
        if told and not any(one.keyword in each for each in told):
            raise NotFoundError(
                f"{archive.name} tells the {one.keyword} of nothing that it has: choose by another "
                "attribute"
            )
    return [each for each in told if all(meets(each, one) for one in criteria)]


def _questions(criteria: Sequence[Criterion]) -> Iterator[Attributes]:
    """Yield what to ask: of several values of an attribute that is no UID, each on its own."""
    values = [
        ["\\".join(map(str, one.values))]
        if one.matching is Matching.UID
        else [_written(value) for value in one.values]
        for one in criteria
    ]
    for number, chosen in enumerate(product(*values)):
        if number >= _MOST_QUESTIONS:
            raise InvalidArgumentError("attributes", f"more than {_MOST_QUESTIONS} combinations")
        yield {one.keyword: value for one, value in zip(criteria, chosen, strict=True)}


def _written(value: str | Span) -> str:
    if isinstance(value, str):
        return value
    first, last = value.first or "", value.last or ""
    return first if first == last else f"{first}-{last}"


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
