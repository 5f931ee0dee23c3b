"""DIMSE messages as the storage and verification services exchange them (PS3.7 sections 9.1, 9.3).

A codec of our own, of a few elements at fixed places: pynetdicom's, which makes a data set of each
command, would cost more than all the rest that is done for a small image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct, error

from dicom_adapter.receive import pdu
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.receive.pdu import ProtocolError

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
IS_RESPONSE = 0x8000
NO_DATA_SET = 0x0101

#: No command set that the standard knows comes near it.
LONGEST_COMMAND_SET = 64 * 1024
#: Error Comment (0000,0902) is a Long String (PS3.7 annex E.1).
LONGEST_COMMENT = 64

# The elements of group 0000 (PS3.7 annex E.1).
_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_ORIGINATOR_AE_TITLE = 0x1030
_ORIGINATOR_MESSAGE_ID = 0x1031

_ELEMENT = Struct("<HHI")
_SHORT = Struct("<H")
_LONG = Struct("<I")
_P_DATA_HEADER = Struct(">BxIIBB")
_LAST_OF_COMMAND = 0x03


@dataclass(frozen=True)
class Command:
    """A command set of a request."""

    field_: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str = field(repr=False)
    #: As it was sent, but for its padding: it may be none, or several.
    sop_instance_uid: str = field(repr=False)
    move_originator: tuple[str, int] | None


def decode_command(content: bytes) -> Command:
    """Decode a command set (PS3.7 section 6.3.1: implicit VR little endian).

    Raises:
        ProtocolError: it is none.
    """
    values: dict[int, bytes] = {}
    at = 0
    try:
        while at < len(content):
            group, element, length = _ELEMENT.unpack_from(content, at)
            at += _ELEMENT.size
            if group or at + length > len(content):
                raise ProtocolError(pdu.INVALID_PARAMETER)
            values[element] = content[at : at + length]
            at += length
        return Command(
            field_=_number(values, _COMMAND_FIELD),
            message_id=_number(values, _MESSAGE_ID) if _MESSAGE_ID in values else 0,
            has_data_set=_number(values, _DATA_SET_TYPE) != NO_DATA_SET,
            sop_class_uid=_text(values, _AFFECTED_SOP_CLASS_UID),
            sop_instance_uid=_text(values, _AFFECTED_SOP_INSTANCE_UID),
            move_originator=_originator(values),
        )
    except (KeyError, error) as wrong:
        raise ProtocolError(pdu.INVALID_PARAMETER) from wrong


def _originator(values: Mapping[int, bytes]) -> tuple[str, int] | None:
    title = pdu.printable_ae_title(_text(values, _ORIGINATOR_AE_TITLE))
    if not title:
        return None
    known = len(values.get(_ORIGINATOR_MESSAGE_ID, b"")) == _SHORT.size
    return title, _number(values, _ORIGINATOR_MESSAGE_ID) if known else 0


def _number(values: Mapping[int, bytes], element: int) -> int:
    (number,) = _SHORT.unpack(values[element])
    return int(number)


def _text(values: Mapping[int, bytes], element: int) -> str:
    # Padded by NUL or, against the standard, by spaces (PS3.5 section 9.1).
    return values.get(element, b"").decode("latin-1").rstrip("\0 ").lstrip(" ")


def response(context: int, command: Command, status: int, comment: str = "") -> bytes:
    """Return the P-DATA PDU of a response to a request (PS3.7 sections 9.3.1.2, 9.3.5.2).

    Args:
        context: The presentation context of the request.
        command: The request.
        status: How it went (PS3.7 annex C).
        comment: Why, for people: at most 64 characters of it are sent.
    """
    elements = (
        _uid_element(_AFFECTED_SOP_CLASS_UID, command.sop_class_uid)
        + _number_element(_COMMAND_FIELD, command.field_ | IS_RESPONSE)
        + _number_element(_MESSAGE_ID_RESPONDED_TO, command.message_id)
        + _number_element(_DATA_SET_TYPE, NO_DATA_SET)
        + _number_element(_STATUS, status)
        + _text_element(_ERROR_COMMENT, comment[:LONGEST_COMMENT], b" ")
        + _uid_element(_AFFECTED_SOP_INSTANCE_UID, command.sop_instance_uid)
    )
    length = _ELEMENT.pack(0, _GROUP_LENGTH, _LONG.size) + _LONG.pack(len(elements))
    size = len(length) + len(elements)
    # It fits into one PDU of any length that is allowed (PS3.8 annex D.1: 4 KiB at least).
    return _P_DATA_HEADER.pack(pdu.P_DATA, size + 6, size + 2, context, _LAST_OF_COMMAND) + (
        length + elements
    )


def _number_element(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, _SHORT.size) + _SHORT.pack(value)


def _uid_element(element: int, uid: str) -> bytes:
    # What is no UID is not repeated: it may be anything.
    return _text_element(element, uid if is_uid(uid) else "", b"\0")


def _text_element(element: int, text: str, padding: bytes) -> bytes:
    if not text:
        return b""
    value = text.encode("latin-1")
    value += padding * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value
