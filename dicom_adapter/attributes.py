"""Attributes as people look for them: what a data set says, and what it has to say.

As C-FIND has it (PS3.4 section C.2.2.2).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import Tag

from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import (
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    Criterion,
    Matching,
    Span,
)

SEARCHED = (
    *STUDY_ATTRIBUTES,
    "StudyInstanceUID",
    "ModalitiesInStudy",
    *SERIES_ATTRIBUTES,
    "SeriesInstanceUID",
)
LONGEST_VALUE = 1024
#: SQLite parses so many and some more; a program that has more asks several times.
MOST_VALUES = 500
#: A text is cut off behind this; PS3.5 section 6.2 has 324 characters for the longest.
LONGEST_TEXT = 1024
_BLANK = " \0"
_TAG = re.compile(r"\(?([0-9a-f]{4}),?([0-9a-f]{4})\)?", re.ASCII | re.IGNORECASE)
_VALUES = {
    "DA": (re.compile(r"[0-9]{8}", re.ASCII), "YYYYMMDD"),
    "TM": (re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?", re.ASCII), "HHMMSS"),
}
_MATCHING = {"UI": Matching.UID, "PN": Matching.NAME, "DA": Matching.RANGE, "TM": Matching.RANGE}


def criteria_of(pairs: Iterable[tuple[str, str]]) -> tuple[Criterion, ...]:
    """Return what attributes have to be, by their keywords or tags; one named twice: either value.

    Several values of one are parted by a backslash; of dates and times `20260101-20260131` is all
    between. An empty value, or `*`, lets everything through.

    Raises:
        InvalidArgumentError: there is no such attribute in the index, or it cannot have that value.
    """
    wanted: dict[str, list[str | Span]] = {}
    everything = set()
    for name, value in pairs:
        keyword = _keyword(name)
        values = list(_values(keyword, value))
        wanted.setdefault(keyword, []).extend(values)
        if len(wanted[keyword]) > MOST_VALUES:
            raise InvalidArgumentError(
                keyword, f"must have at most {MOST_VALUES} values: search several times"
            )
        if not values:
            everything.add(keyword)
    return tuple(
        Criterion(keyword, _matching(keyword), tuple(values))
        for keyword, values in wanted.items()
        if keyword not in everything
    )


def _keyword(name: str) -> str:
    digits = _TAG.fullmatch(name)
    keyword = keyword_for_tag(Tag(int(digits[1], 16), int(digits[2], 16))) if digits else name
    if keyword not in SEARCHED:
        near = get_close_matches(name[:64], SEARCHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidArgumentError(
            "attributes", f"nothing is searched by '{name}'{hint}; known are {', '.join(SEARCHED)}"
        )
    return keyword


def _representation(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return "" if tag is None else dictionary_VR(tag)


def _matching(keyword: str) -> Matching:
    return _MATCHING.get(_representation(keyword), Matching.TEXT)


def _values(keyword: str, text: str) -> Iterator[str | Span]:
    if len(text) > LONGEST_VALUE:
        raise InvalidArgumentError(keyword, f"must have at most {LONGEST_VALUE} characters")
    if not text.strip(_BLANK).isprintable():
        # SQLite would end it at a NUL, and find more than is asked.
        raise InvalidArgumentError(keyword, "must be without control characters")
    representation = _representation(keyword)
    for value in (part.strip(" \0") for part in text.split("\\")):
        if value in {"", "*"}:
            continue
        yield _span(keyword, representation, value) if representation in _VALUES else value


def _span(keyword: str, representation: str, value: str) -> str | Span:
    pattern, form = _VALUES[representation]
    first, dash, last = value.partition("-")
    for end in (first, last):
        if end and not pattern.fullmatch(end):
            raise InvalidArgumentError(
                keyword, f"must be {form}, {form}-{form}, {form}- or -{form}, not '{value}'"
            )
    if not first and not last:
        raise InvalidArgumentError(keyword, "must name one end of the range at least")
    return Span(first or None, last or None) if dash else Span(first, first)


def texts_of(dataset: Dataset, keywords: Iterable[str]) -> dict[str, str]:
    """Return what a data set says, by keyword; several values are parted by a backslash.

    What is absent, empty or not legal is left out.
    """
    found = {keyword: _text(dataset, keyword) for keyword in keywords}
    return {keyword: text for keyword, text in found.items() if text}


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value: Any = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        text = "\\".join("" if one is None else str(one) for one in values)
    except Exception:  # noqa: BLE001 - pydicom meets what is broken with errors of many kinds
        return ""
    # What no text may have (PS3.5 section 6.2), and SQLite would end a text at.
    return "".join(filter(str.isprintable, text)).strip(_BLANK)[:LONGEST_TEXT]


def folded(name: str) -> str:
    """Return a person's name as names are compared: its component groups, each between two `=`."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return f"={letters}="


def meets(attributes: Mapping[str, str], wanted: Criterion) -> bool:
    """Tell whether attributes, by keyword, have one of the values that are wanted."""
    said = attributes.get(wanted.keyword, "")
    return any(
        _matches(wanted.matching, text, value)
        for text in said.split("\\")
        if text
        for value in wanted.values
    )


def _matches(matching: Matching, text: str, value: str | Span) -> bool:
    if isinstance(value, Span):
        # An end that is less exact, such as an hour, is met by all that begins with it.
        is_late_enough = value.first is None or text >= value.first
        return is_late_enough and (value.last is None or text[: len(value.last)] <= value.last)
    if matching is Matching.UID:
        return text == value
    if matching is Matching.NAME:
        return _pattern(folded(value)).search(folded(text)) is not None
    return _pattern(value).fullmatch(text) is not None


def _pattern(value: str) -> re.Pattern[str]:
    """Return wildcards of PS3.4 section C.2.2.2.4 as a regular expression."""
    first, *others = (
        "".join("." if one == "?" else re.escape(one) for one in part) for part in value.split("*")
    )
    # Of what is between two `*` the first place is as good as any: with others tried as well, a few
    # of them would take for ever.
    between = [f"(?>.*?{part})" for part in others[:-1]]
    end = [f".*{part}" for part in others[-1:]]
    return re.compile("".join([first, *between, *end]), re.IGNORECASE)
