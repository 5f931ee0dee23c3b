"""Reads what an instance says of itself: what the index has of it."""

import math
from collections.abc import Sequence
from typing import Any, cast

from pydicom import Dataset

from dicom_adapter.attributes import texts_of
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
        study=texts_of(dataset, STUDY_ATTRIBUTES),
        series=texts_of(dataset, SERIES_ATTRIBUTES),
        placement=Placement(
            cast("Position | None", position), cast("Orientation | None", orientation)
        ),
        frames=int(frames[0]) if frames and frames[0] > 1 else 1,
    )


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        value: Any = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        numbers = tuple(float(one) for one in values)
    except Exception:  # noqa: BLE001 - as above
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None
