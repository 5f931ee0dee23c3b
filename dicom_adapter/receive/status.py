"""What the sender of a C-STORE is told (PS3.4 B.2.3, PS3.7 9.1.1.1.9): one table."""

import re

from dicom_adapter.errors import (
    MismatchedInstanceError,
    NoInstanceUIDError,
    OutOfResourcesError,
    RefusedInstanceError,
    UnreadableInstanceError,
    UnsupportedClassError,
)

SUCCESS = 0x0000
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
MISMATCHED = 0xA900
CANNOT_UNDERSTAND = 0xC000

_PLACE = re.compile(r" at byte \d+")
_STATUS: tuple[tuple[type[RefusedInstanceError], int], ...] = (
    (OutOfResourcesError, OUT_OF_RESOURCES),
    (NoInstanceUIDError, INVALID_SOP_INSTANCE),
    (UnsupportedClassError, SOP_CLASS_NOT_SUPPORTED),
    (MismatchedInstanceError, MISMATCHED),
    (UnreadableInstanceError, CANNOT_UNDERSTAND),
)


def status_of(error: Exception) -> int:
    """Return the status that tells the sender why its instance is refused.

    Whatever is no refusal is a fault of ours: the sender keeps its instance, and may try again.
    """
    return next((s for kind, s in _STATUS if isinstance(error, kind)), OUT_OF_RESOURCES)


def comment_of(error: Exception) -> str:
    """Return why an instance is refused; a fault's own message may quote the data set."""
    return str(error) if isinstance(error, RefusedInstanceError) else "internal error"


def kind_of(why: str) -> str:
    """Return why an instance is refused without the place: a byte's number would make each one."""
    return _PLACE.sub("", why)
