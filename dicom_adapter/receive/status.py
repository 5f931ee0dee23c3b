"""What the sender of a C-STORE is told (PS3.4 B.2.3, PS3.7 9.1.1.1.9): one table."""

from pydicom import Dataset

from dicom_adapter.errors import (
    MismatchedInstanceError,
    OutOfResourcesError,
    RefusedInstanceError,
    UnreadableInstanceError,
)

SUCCESS = 0x0000
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
MISMATCHED = 0xA900
CANNOT_UNDERSTAND = 0xC000

LONGEST_COMMENT = 64

_STATUS: tuple[tuple[type[RefusedInstanceError], int], ...] = (
    (OutOfResourcesError, OUT_OF_RESOURCES),
    (MismatchedInstanceError, MISMATCHED),
    (UnreadableInstanceError, CANNOT_UNDERSTAND),
)


def status_of(error: RefusedInstanceError) -> int:
    """Return the status that tells the sender why its instance is refused."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def response(status: int, comment: str = "") -> Dataset:
    """Return a status with its Error Comment (0000,0902), as pynetdicom sends it."""
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:LONGEST_COMMENT]
    return answer
