"""The PDUs of the upper layer (PS3.8 section 9.3), on pynetdicom's codecs.

Only what negotiates goes through those; P-DATA is cut into its parts by `framing`, since nothing
of it needs an object. What pynetdicom cannot bear is found before it decodes anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct, error

from pynetdicom.pdu import A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA = 0x04
RELEASE_RQ, RELEASE_RP, ABORT = 0x05, 0x06, 0x07
KNOWN = range(ASSOCIATE_RQ, ABORT + 1)

#: Reasons of an A-ABORT by the service provider (PS3.8 table 9-26).
NOT_SPECIFIED, UNRECOGNIZED, UNEXPECTED, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 0, 1, 2, 5, 6
#: The sources of an A-ABORT.
SERVICE_USER, SERVICE_PROVIDER = 0, 2
_REASONS = {
    UNRECOGNIZED: "PDU not recognized",
    UNEXPECTED: "PDU not expected",
    4: "PDU parameter not recognized",
    UNEXPECTED_PARAMETER: "PDU parameter not expected",
    INVALID_PARAMETER: "invalid PDU parameter",
}

#: An A-ASSOCIATE-RQ of 128 contexts with every transfer syntax there is has a tenth of this.
LONGEST_ASSOCIATE_RQ = 1024 * 1024
MOST_CONTEXTS = 128
# Far more than anybody sends; each costs pynetdicom's decoder 10 microseconds or more.
MOST_SUB_ITEMS = 4096

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_PDU = Struct(">BxI")
# The length of the PDUs that release and abort.
_FOUR = 4
_PROTOCOL_VERSION = Struct(">H").unpack_from
_ITEM_HEADER = Struct(">BxH")
# PS3.8 table 9-11, behind the PDU's own header of six bytes.
_CALLED, _CALLING, _ITEMS = slice(4, 20), slice(20, 36), 68
_UNUSABLE = b"?".ljust(16)
_APPLICATION_CONTEXT_ITEM, _CONTEXT_ITEM, _USER_INFORMATION_ITEM = 0x10, 0x20, 0x50
_CONTEXT_HEADER = 4
_ABSTRACT_SYNTAX_ITEM, _TRANSFER_SYNTAX_ITEM = 0x30, 0x40
# The sub-items of the user information that pynetdicom knows (PS3.7 annex D.3.3).
_USER_ITEMS = frozenset({0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59})


class ProtocolError(Exception):
    """The peer broke the upper layer protocol: the reason that its A-ABORT gives."""

    def __init__(self, reason: int, why: str = "") -> None:
        super().__init__(why or _REASONS.get(reason, "the peer broke the protocol"))
        self.reason = reason


@dataclass(frozen=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ: what is needed before pynetdicom is asked to decode the rest."""

    #: As they were sent, without the spaces around: for comparing only, never for a log.
    called: str = field(repr=False)
    calling: str = field(repr=False)
    #: Whether bit 0, for version 1, is set.
    version_is_ours: bool
    application_context: str = field(repr=False)
    primitive: A_ASSOCIATE = field(repr=False)

    @property
    def contexts(self) -> Sequence[PresentationContext]:
        """The proposed presentation contexts."""
        return self.primitive.presentation_context_definition_list


def decode_associate_rq(body: bytes) -> AssociateRequest:
    """Decode the body of an A-ASSOCIATE-RQ, which follows the six bytes of its header.

    Raises:
        ProtocolError: it is none (PS3.8 section 9.3.2).
    """
    try:
        items = list(_items(body, _ITEMS))
        application_context, kept = _judge(items)
        (version,) = _PROTOCOL_VERSION(body)
        harmless = bytearray(body[:_ITEMS])
        called, calling = _text(body[_CALLED]), _text(body[_CALLING])
        for where, title in ((_CALLED, called), (_CALLING, calling)):
            # pynetdicom would choke on it; PS3.8 has rejections for that.
            if not is_ae_title(title):
                harmless[where] = _UNUSABLE
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(_ITEM_HEADER.pack(ASSOCIATE_RQ, 0) + b"\0\0" + bytes(harmless) + kept)
        primitive = pdu.to_primitive()
    except ProtocolError:
        raise
    except Exception as wrong:
        # Whatever pynetdicom makes of it: a parameter of it is invalid.
        raise ProtocolError(INVALID_PARAMETER) from wrong
    return AssociateRequest(called, calling, bool(version & 1), application_context, primitive)


def _judge(items: Sequence[tuple[int, bytes]]) -> tuple[str, bytes]:
    """Return the application context and the items that pynetdicom is to decode.

    An application context that is not DICOM's is replaced: it is ours to reject, by its name. What
    no edition of the standard knows is left out, as PS3.8 section 9.3.1 asks.
    """
    names = [content for kind, content in items if kind == _APPLICATION_CONTEXT_ITEM]
    contexts = [content for kind, content in items if kind == _CONTEXT_ITEM]
    if len(names) != 1 or not contexts or len(contexts) > MOST_CONTEXTS:
        raise ProtocolError(INVALID_PARAMETER)
    numbers = [content[0] for content in contexts]
    if len(set(numbers)) < len(numbers) or any(number % 2 == 0 for number in numbers):
        raise ProtocolError(INVALID_PARAMETER)
    left = MOST_SUB_ITEMS
    kept = _item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode())
    for kind, content in items:
        if kind == _CONTEXT_ITEM:
            left -= _judge_context(content)
            kept += _item(kind, content)
        elif kind == _USER_INFORMATION_ITEM:
            known = [item for item in _items(content, 0) if item[0] in _USER_ITEMS]
            left -= len(known)
            kept += _item(kind, b"".join(_item(*item) for item in known))
        if left < 0:
            raise ProtocolError(INVALID_PARAMETER)
    return names[0].decode("latin-1").rstrip("\0 "), kept


def _judge_context(content: bytes) -> int:
    """Return how many transfer syntaxes a context proposes: one at least, for one SOP class."""
    kinds = [kind for kind, _ in _items(content, _CONTEXT_HEADER)]
    transfer_syntaxes = kinds.count(_TRANSFER_SYNTAX_ITEM)
    if kinds.count(_ABSTRACT_SYNTAX_ITEM) != 1 or not transfer_syntaxes:
        raise ProtocolError(INVALID_PARAMETER)
    return transfer_syntaxes


def _items(content: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    count = 0
    while at < len(content):
        try:
            kind, length = _ITEM_HEADER.unpack_from(content, at)
        except error:
            raise ProtocolError(INVALID_PARAMETER) from None
        at += _ITEM_HEADER.size
        count += 1
        if at + length > len(content) or count > MOST_SUB_ITEMS:
            raise ProtocolError(INVALID_PARAMETER)
        yield kind, content[at : at + length]
        at += length


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM_HEADER.pack(kind, len(content)) + content


def associate_rj(result: int, source: int, diagnostic: int) -> bytes:
    """Return an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, diagnostic
    return bytes(pdu.encode())


def release_rp() -> bytes:
    """Return an A-RELEASE-RP (PS3.8 section 9.3.7)."""
    return _PDU.pack(RELEASE_RP, _FOUR) + bytes(_FOUR)


def abort(source: int, reason: int) -> bytes:
    """Return an A-ABORT (PS3.8 section 9.3.8)."""
    return _PDU.pack(ABORT, _FOUR) + bytes([0, 0, source, reason])


def abort_reason(body: bytes) -> str:
    """Return why the peer aborts, as the body of its A-ABORT has it; empty if it gives no reason.

    Only the protocol machine gives reasons, and 0 is none (PS3.8 table 9-26).
    """
    source, reason = body[2:4]
    return "" if source == SERVICE_USER else _REASONS.get(reason, "")


def _text(title: bytes) -> str:
    # Spaces around a title do not count (PS3.8 table 9-11). Latin 1 keeps every byte apart.
    return title.decode("latin-1").strip(" ")


def is_ae_title(text: str) -> bool:
    """Tell whether a text is an AE title: 1 to 16 printable ASCII characters, no backslash.

    PS3.5 section 6.2, value representation AE.
    """
    return bool(text) and text == printable_ae_title(text)


def printable_ae_title(text: str) -> str:
    """Return an AE title fit for a log: what is outside the repertoire becomes `?`."""
    allowed = (c if " " <= c <= "~" and c != "\\" else "?" for c in text.strip(" ")[:16])
    return "".join(allowed)
