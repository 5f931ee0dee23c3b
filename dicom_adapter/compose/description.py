"""Reads what an instance says of itself: what the index has of it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydicom import Dataset

from dicom_adapter.model import (
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    Description,
    Orientation,
    Placement,
    Position,
    StoredInstance,
)

_POSITION, _ORIENTATION, _FRAMES = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
)
_READ = (*STUDY_ATTRIBUTES, *SERIES_ATTRIBUTES, _POSITION, _ORIENTATION, _FRAMES)
#: A text is no longer than this in the index; PS3.5 section 6.2 has 324 characters for the longest.
LONGEST_TEXT = 1024
_BLANK = " \0"


def description_of(instance: StoredInstance) -> Description:
    """Return what an instance says of itself; what it says in no legal way is left out.

    Raises:
        OSError: its file cannot be read.
    """
    try:
        dataset = instance.read(*_READ)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - pydicom meets what is broken with errors of many kinds
        # It was proved whole as it came, so people must find it all the same, by its UIDs.
        dataset = Dataset()
    frames = _numbers(dataset, _FRAMES, 1)
    position, orientation = _numbers(dataset, _POSITION, 3), _numbers(dataset, _ORIENTATION, 6)
    return Description(
        study=_texts(dataset, STUDY_ATTRIBUTES),
        series=_texts(dataset, SERIES_ATTRIBUTES),
        placement=Placement(
            cast("Position | None", position), cast("Orientation | None", orientation)
        ),
        frames=int(frames[0]) if frames and frames[0] > 1 else 1,
    )


def _texts(dataset: Dataset, keywords: Iterable[str]) -> dict[str, str]:
    found = {keyword: _text(dataset, keyword) for keyword in keywords}
    return {keyword: text for keyword, text in found.items() if text}


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value: Any = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        text = "\\".join("" if one is None else str(one) for one in values)
    except Exception:  # noqa: BLE001 - as above: nothing is said of this attribute, then
        return ""
    # What no text may have (PS3.5 section 6.2), and SQLite would end a text at.
    return "".join(filter(str.isprintable, text)).strip(_BLANK)[:LONGEST_TEXT]


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        value: Any = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        numbers = tuple(float(one) for one in values)
    except Exception:  # noqa: BLE001 - as above
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None
