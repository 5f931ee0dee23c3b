"""The DICOM file around a received data set (PS3.10 section 7): its header, what it says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_adapter.errors import UnreadableInstanceError

# One implementation, one UID (PS3.7 D.3.3.2); derived from a UUID as PS3.5 B.2 says.
IMPLEMENTATION_CLASS_UID = UID("2.25.259216187365462803958914871523540870254")
IMPLEMENTATION_VERSION_NAME = "DICOM_ADAPTER_1"

PREAMBLE = b"\0" * 128 + b"DICM"

# Elements of the file meta information: explicit VR little endian (PS3.10 section 7.1).
_GROUP_LENGTH = Struct("<HH2sHI")
_GROUP_LENGTH_SIZE = _GROUP_LENGTH.size
_INSTANCE_ELEMENT = Struct("<HH2sH")
_ANY_UID = "2.25.0"

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_INSTANCE_NUMBER = 0x00200013
#: The attributes that `identity_of` reads, by tag.
IDENTIFYING = frozenset(
    {
        _SOP_CLASS_UID,
        _SOP_INSTANCE_UID,
        _STUDY_INSTANCE_UID,
        _SERIES_INSTANCE_UID,
        _INSTANCE_NUMBER,
    }
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


class Header:
    """Preamble, prefix and file meta information (PS3.10 section 7.1) of one context's files.

    All that differs between them is the SOP Instance UID, so the rest is made once.
    """

    def __init__(self, sop_class_uid: str, transfer_syntax_uid: str, origin: Origin) -> None:
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = UID(sop_class_uid)
        meta.MediaStorageSOPInstanceUID = UID(_ANY_UID)
        meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        if origin.calling_ae_title:
            # What came by DICOMweb came from no application entity.
            meta.SourceApplicationEntityTitle = origin.calling_ae_title
            meta.SendingApplicationEntityTitle = origin.calling_ae_title
        meta.ReceivingApplicationEntityTitle = origin.called_ae_title
        buffer = DicomBytesIO()
        write_file_meta_info(buffer, meta)
        whole = buffer.getvalue()
        any_instance = _instance_element(_ANY_UID)
        before, self._after = whole[_GROUP_LENGTH_SIZE:].split(any_instance)
        self._before = before
        self._length = len(before) + len(self._after)

    def of(self, sop_instance_uid: str) -> bytes:
        """Return what comes before the data set of an instance."""
        instance = _instance_element(sop_instance_uid)
        group_length = _GROUP_LENGTH.pack(2, 0, b"UL", 4, self._length + len(instance))
        return b"".join((PREAMBLE, group_length, self._before, instance, self._after))


def _instance_element(uid: str) -> bytes:
    value = uid.encode("ascii")
    value += bytes(len(value) % 2)
    return _INSTANCE_ELEMENT.pack(2, 3, b"UI", len(value)) + value


def identity_of(values: Mapping[int, bytes]) -> Identity:
    """Return what a data set says it is, from the values of `IDENTIFYING` as they are encoded.

    Raises:
        UnreadableInstanceError: it has no usable UIDs.
    """
    return Identity(
        sop_class_uid=_uid(values, _SOP_CLASS_UID),
        sop_instance_uid=_uid(values, _SOP_INSTANCE_UID),
        study_instance_uid=_uid(values, _STUDY_INSTANCE_UID),
        series_instance_uid=_uid(values, _SERIES_INSTANCE_UID),
        instance_number=_number(values.get(_INSTANCE_NUMBER, b"")),
    )


def is_uid(text: str) -> bool:
    """Tell whether a text can stand for a UID: digits and dots, at most 64 (PS3.5 section 9.1).

    Leading zeros in a component are let through: modalities write them, and nothing breaks.
    """
    return _UID.fullmatch(text) is not None


def _uid(values: Mapping[int, bytes], tag: int) -> str:
    value = _text(values.get(tag, b""))
    if not value:
        raise UnreadableInstanceError(f"the data set has no {keyword_for_tag(tag)}")
    if not is_uid(value):
        raise UnreadableInstanceError(f"the data set's {keyword_for_tag(tag)} is not one UID")
    return value


def _number(value: bytes) -> int | None:
    try:
        number = int(_text(value))
    except ValueError:
        return None
    # What an Integer String may hold (PS3.5 section 6.2), and so the ledger.
    return number if -(2**31) <= number < 2**31 else None


def _text(value: bytes) -> str:
    # UIDs are padded by NUL, texts by spaces (PS3.5 section 6.2); both are in the repertoire.
    return value.decode("latin-1").strip("\0 ")
