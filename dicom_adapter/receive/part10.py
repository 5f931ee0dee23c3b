"""The DICOM file around a received data set (PS3.10 section 7): its header, what it says."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_adapter.errors import UnreadableInstanceError

# One implementation, one UID (PS3.7 D.3.3.2); derived from a UUID as PS3.5 B.2 says.
IMPLEMENTATION_CLASS_UID = UID("2.25.259216187365462803958914871523540870254")
IMPLEMENTATION_VERSION_NAME = "DICOM_ADAPTER_1"

PREAMBLE = b"\0" * 128 + b"DICM"

_IDENTIFYING = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
)
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Identity:
    """What a data set says it is."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    instance_number: int | None


@dataclass(frozen=True)
class Origin:
    """The AE titles that a data set came from and went to."""

    calling_ae_title: str
    called_ae_title: str


def header(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, origin: Origin
) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = origin.calling_ae_title
    meta.SendingApplicationEntityTitle = origin.calling_ae_title
    meta.ReceivingApplicationEntityTitle = origin.called_ae_title
    buffer = DicomBytesIO()
    buffer.write(PREAMBLE)
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()


def identify(path: Path) -> Identity:
    """Read from a Part 10 file what its data set says it is; pixel data is not read.

    Raises:
        UnreadableInstanceError: it cannot be parsed, or has no usable UIDs.
    """
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(_IDENTIFYING))
        return Identity(
            sop_class_uid=_uid(dataset, "SOPClassUID"),
            sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
            study_instance_uid=_uid(dataset, "StudyInstanceUID"),
            series_instance_uid=_uid(dataset, "SeriesInstanceUID"),
            instance_number=_number(dataset),
        )
    except UnreadableInstanceError:
        raise
    except (InvalidDicomError, EOFError):
        raise UnreadableInstanceError("the data set ends too early or is not DICOM") from None
    except Exception as error:
        # pydicom meets broken data sets with exceptions of many kinds, zlib's among them.
        raise UnreadableInstanceError(
            f"the data set cannot be parsed ({type(error).__name__})"
        ) from error


def is_uid(text: str) -> bool:
    """Tell whether a text can stand for a UID: digits and dots, at most 64 (PS3.5 section 9.1).

    Leading zeros in a component are let through: modalities write them, and nothing breaks.
    """
    return _UID.fullmatch(text) is not None


def _uid(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword) or "").strip("\0 ")
    if not value:
        raise UnreadableInstanceError(f"the data set has no {keyword}")
    if not is_uid(value):
        raise UnreadableInstanceError(f"the data set's {keyword} is not one UID")
    return value


def _number(dataset: Dataset) -> int | None:
    try:
        return int(dataset.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None
