"""An A-ASSOCIATE-RQ whose AE titles we judge ourselves.

pynetdicom answers a title that is blank or holds other than ASCII with an A-ABORT, and its log
quotes it; PS3.8 has rejections for that, and the sender's people understand those.
"""

from pynetdicom.pdu import A_ASSOCIATE_RQ

# PS3.8 table 9-11: where the two titles stand.
_CALLED = slice(10, 26)
_CALLING = slice(26, 42)
_UNUSABLE = b"?".ljust(16)


class AssociateRequest(A_ASSOCIATE_RQ):
    """The PDU as pynetdicom decodes it, and the titles as they were sent."""

    called = ""
    calling = ""

    def decode(self, bytestream: bytes) -> None:
        """Decode the PDU; a title that pynetdicom would choke on is only in our two fields."""
        self.called = _text(bytestream[_CALLED])
        self.calling = _text(bytestream[_CALLING])
        harmless = bytearray(bytestream)
        for where, title in ((_CALLED, self.called), (_CALLING, self.calling)):
            if not is_ae_title(title):
                harmless[where] = _UNUSABLE
        super().decode(bytes(harmless))


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
