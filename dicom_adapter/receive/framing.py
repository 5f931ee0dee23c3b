"""Cuts what a peer sends into PDUs, and P-DATA into its fragments, as the bytes arrive.

Nothing of P-DATA is kept or copied here: a fragment is handed on as a view of the received bytes,
in as many pieces as it comes in (PS3.8 section 9.3.5, annex E.2).
"""

from struct import Struct
from typing import Protocol

from dicom_adapter.receive import pdu
from dicom_adapter.receive.pdu import ProtocolError

_PDU_HEADER = Struct(">BxI")
_PDV_HEADER = Struct(">IBB")
_HEADER = 6
# How a peer begins that wants TLS (RFC 8446 section 5.1).
_TLS_HANDSHAKE = 0x16
# The context and the control header are counted in an item's length.
_COUNTED = 2
_COMMAND, _LAST = 0x01, 0x02


class Receiver(Protocol):
    """Who is told of what the peer sends; each call may raise `ProtocolError`."""

    @property
    def busy(self) -> bool:
        """True while nothing more may be handed on: an answer is to be given first."""
        ...

    def begin_pdu(self, kind: int, length: int) -> None:
        """Take note of a PDU whose header has come."""

    def take_pdu(self, kind: int, body: bytes) -> None:
        """Take a whole PDU other than P-DATA."""

    def take_fragment(
        self, context: int, data: memoryview, *, is_command: bool, is_end: bool
    ) -> None:
        """Take the next bytes of a command or data set; its last ones when `is_end`."""


class Framing:
    """Where in the stream of PDUs the peer is."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._header = bytearray()
        self._kind = 0
        self._body = bytearray()
        self._inside = False
        #: Bytes that are left of the PDU, and of the presentation data value in it.
        self._pdu_left = 0
        self._pdv_left = 0
        self._context = 0
        self._control = 0

    @property
    def is_between(self) -> bool:
        """True where a PDU has ended and none has begun."""
        return not self._inside and not self._header

    def feed(self, data: memoryview) -> int:
        """Hand on what the next bytes hold; return how many were taken.

        These are all of them, unless the receiver got busy.

        Raises:
            ProtocolError: no stream of PDUs goes on like this.
        """
        at, end = 0, len(data)
        while at < end and not self._receiver.busy:
            if not self._inside:
                at = self._begin_pdu(data, at)
            elif self._kind != pdu.P_DATA:
                at = self._collect(data, at)
            elif not self._pdv_left:
                at = self._begin_value(data, at)
            else:
                count = min(self._pdv_left, end - at)
                self._pdv_left -= count
                self._pdu_left -= count
                self._hand_on(data[at : at + count])
                at += count
        return at

    def _take_header(self, data: memoryview, at: int) -> int:
        """Collect a header of six bytes; return where it ends, here or in what comes next."""
        count = min(_HEADER - len(self._header), len(data) - at)
        self._header += data[at : at + count]
        return at + count

    def _begin_pdu(self, data: memoryview, at: int) -> int:
        at = self._take_header(data, at)
        # The first byte alone tells what speaks no DICOM; it may never send a sixth.
        if self._header[0] not in pdu.KNOWN:
            by_tls = self._header[0] == _TLS_HANDSHAKE
            raise ProtocolError(
                pdu.UNRECOGNIZED, "it speaks TLS, and this port does not" if by_tls else ""
            )
        if len(self._header) < _HEADER:
            return at
        self._kind, self._pdu_left = _PDU_HEADER.unpack(self._header)
        self._header.clear()
        self._receiver.begin_pdu(self._kind, self._pdu_left)
        self._inside = bool(self._pdu_left)
        return at

    def _collect(self, data: memoryview, at: int) -> int:
        count = min(self._pdu_left, len(data) - at)
        self._body += data[at : at + count]
        self._pdu_left -= count
        if not self._pdu_left:
            body, self._body = bytes(self._body), bytearray()
            self._inside = False
            self._receiver.take_pdu(self._kind, body)
        return at + count

    def _begin_value(self, data: memoryview, at: int) -> int:
        if self._pdu_left + len(self._header) < _HEADER:
            raise ProtocolError(pdu.INVALID_PARAMETER)
        start = at
        at = self._take_header(data, at)
        self._pdu_left -= at - start
        if len(self._header) < _HEADER:
            return at
        length, self._context, self._control = _PDV_HEADER.unpack(self._header)
        self._header.clear()
        self._pdv_left = length - _COUNTED
        if not 0 <= self._pdv_left <= self._pdu_left:
            raise ProtocolError(pdu.INVALID_PARAMETER)
        if not self._pdv_left:
            self._hand_on(data[at:at])
        return at

    def _hand_on(self, data: memoryview) -> None:
        self._inside = bool(self._pdu_left)
        self._receiver.take_fragment(
            self._context,
            data,
            is_command=bool(self._control & _COMMAND),
            is_end=not self._pdv_left and bool(self._control & _LAST),
        )
