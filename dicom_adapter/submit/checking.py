"""Checks what is to be submitted against what its pipeline requires."""

from collections.abc import Sequence
from typing import TypeAlias

from pydicom import Dataset

from dicom_adapter.conditions import Series, Unmet, unmet, wanted
from dicom_adapter.errors import UnreadableInstanceError
from dicom_adapter.model import JobRequest, Requirements, StoredInstance

#: Study, series, and what there is of it, in order.
Given: TypeAlias = tuple[str, str, Sequence[StoredInstance]]


def unmet_by(
    request: JobRequest, members: Sequence[StoredInstance], requires: Requirements
) -> list[Unmet]:
    """Return what the series of a request do not meet, item by item.

    Raises:
        OSError: a file is not there any more, or cannot be read.
        UnreadableInstanceError: a file is no DICOM that can be understood.
    """
    by_id = {member.id: member for member in members}
    items = [
        [(one.study, one.series, [by_id[file.instance_id] for file in one.files]) for one in inputs]
        for inputs in request.items
    ]
    return unmet_of(items, requires)


def unmet_of(items: Sequence[Sequence[Given]], requires: Requirements) -> list[Unmet]:
    """Return what the series of items do not meet, item by item; raises as `unmet_by` does."""
    tags = wanted(requires)
    found = []
    for item in items:
        series = [
            Series(study, uid, [_read(one, tags) for one in stored]) for study, uid, stored in item
        ]
        found += unmet(requires, series)
    return found


def _read(instance: StoredInstance, tags: Sequence[int]) -> Dataset:
    if not tags:
        # None would be all of them.
        return Dataset()
    try:
        return instance.read(*tags)
    except OSError:
        raise
    except Exception as error:
        # pydicom meets what it does not understand with errors of many kinds, and quotes it.
        raise UnreadableInstanceError(
            f"instance {instance.id} cannot be read ({type(error).__name__}), so nobody can tell "
            "whether it is what the pipeline requires"
        ) from error
