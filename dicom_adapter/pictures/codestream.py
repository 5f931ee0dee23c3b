"""What compressed frames say of their own size: a decoder trusts it, and makes room for it."""

from itertools import pairwise

_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
# Where the codestream of a JP2 file begins: behind the header of this box.
_JP2 = b"\x00\x00\x00\x0cjP  "
_JP2_CODESTREAM = b"jp2c"
# SOF0 to SOF15 without the tables DHT, JPG and DAC, and SOF55 of JPEG-LS.
_STARTS_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def stated_size(codestream: bytes) -> tuple[int, int] | None:
    """Return rows and columns as a JPEG, JPEG-LS or JPEG 2000 codestream has them.

    None when it is of another kind or damaged before it says so; rows may be 0 where a JPEG tells
    its height at the end (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2, 15444-1 A.5.1).
    """
    if codestream.startswith(_JP2):
        start = codestream.find(_JP2_CODESTREAM, 0, 1 << 16)
        codestream = codestream[start + 4 :] if start >= 0 else b""
    if codestream.startswith(_JPEG_2000):
        return _size_of_jpeg_2000(codestream)
    return _size_of_jpeg(codestream) if codestream.startswith(_JPEG) else None


def _size_of_jpeg_2000(codestream: bytes) -> tuple[int, int] | None:
    numbers = [
        int.from_bytes(codestream[start:end], "big") for start, end in pairwise(range(8, 28, 4))
    ]
    if len(codestream) < 24:  # noqa: PLR2004 - as far as the offset of the image
        return None
    width, height, left, top = numbers
    return height - top, width - left


def _size_of_jpeg(codestream: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(codestream) and codestream[place] == 0xFF:  # noqa: PLR2004
        marker = codestream[place + 1]
        if marker in _STARTS_OF_FRAME:
            return (
                int.from_bytes(codestream[place + 5 : place + 7], "big"),
                int.from_bytes(codestream[place + 7 : place + 9], "big"),
            )
        # A marker may have fill bytes of FF before it.
        length = int.from_bytes(codestream[place + 2 : place + 4], "big")
        place += 1 if marker == 0xFF else 2 + length  # noqa: PLR2004
    return None
