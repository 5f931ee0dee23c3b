"""Walks a data set's structure (PS3.5 section 7) as its bytes arrive.

It proves the data set whole to its last element, and picks out the few values that are asked for.
Nothing is decoded and nothing recurses: a value is skipped by its length, and so is a sequence or
item that tells one; only those of undefined length are entered, each a level on a list.
"""

import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from struct import Struct
from typing import Literal

from dicom_adapter.errors import UnreadableInstanceError

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: A value that is asked for and longer than this is not taken: no UID or number is.
LONGEST_VALUE = 1024
#: Each level costs its sender 16 bytes and us a list entry.
DEEPEST_LEVEL = 4096
#: A deflated data set is inflated to no more than this: what is asked for stands at its beginning.
INFLATED_BYTES = 1024 * 1024

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Deflated as a whole: PS3.5 section A.5, and with a reference to pixels by JPIP A.7 and A.12.
_DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

# Explicit VRs with two reserved bytes and a length of 32 bits; all others have 16 (PS3.5 7.1.2).
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# Of items and what ends them (PS3.5 section 7.5); implicit VR is always little endian, where the
# group is the low half of a tag that is read as one number.
_DELIMITING_GROUP = 0xFFFE
# How (0002,eeee) begins in a file. In front of a data set it would belong to the file's own meta
# information for those who read that to its last element, and name another transfer syntax.
_FILE_META_GROUP = b"\x02\x00"
_HEADER = 8
_LONG_HEADER = 12

# What a level holds: elements, or the items of a sequence of undefined length.
_ELEMENTS, _ITEMS = False, True


class _Headers:
    """How to read headers in one byte order, and which are those of what is asked for."""

    def __init__(self, byte_order: Literal["<", ">"], wanted: frozenset[int]) -> None:
        self.tag_length = Struct(f"{byte_order}HHI").unpack_from
        self.tag_vr_length = Struct(f"{byte_order}HH2sH").unpack_from
        self.length = Struct(f"{byte_order}I").unpack_from
        # The same, read as fewer numbers: tag, VR and length of 16 bits, or tag and length of 32.
        self.tag_and_vr = Struct(f"{byte_order}IHH").unpack_from
        self.tag_alone = Struct(f"{byte_order}II").unpack_from
        order: Literal["little", "big"] = "little" if byte_order == "<" else "big"
        self.plain = frozenset(int.from_bytes(vr, order) for vr in _SHORT)
        self.wanted = wanted
        as_number = Struct(f"{byte_order}HH").pack
        self.wanted_numbers = frozenset(
            int.from_bytes(as_number(tag >> 16, tag & 0xFFFF), order) for tag in wanted
        )


@lru_cache(maxsize=16)
def _headers(byte_order: Literal["<", ">"], wanted: frozenset[int]) -> _Headers:
    # Made once, not for each instance: it is a third of what walking over a small one costs.
    return _Headers(byte_order, wanted)


class Walk:
    """A walk over one data set: feed it every byte, then finish it."""

    def __init__(self, transfer_syntax_uid: str, wanted: Collection[int]) -> None:
        is_big = transfer_syntax_uid == EXPLICIT_BIG_ENDIAN
        self._headers = _headers(">" if is_big else "<", frozenset(wanted))
        self._wanted = self._headers.wanted
        #: What was asked for and has come by so far, by tag.
        self.values: dict[int, bytes] = {}
        self._implicit = transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
        # Levels of undefined length that are entered, with whether their elements have no VR.
        self._levels: list[tuple[bool, bool]] = []
        self._left = b""
        self._skip = 0
        self._offset = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Walk on over the next bytes.

        Raises:
            UnreadableInstanceError: no data set goes on like this.
        """
        if self._skip >= len(data):
            self._skip -= len(data)
            self._offset += len(data)
            return
        start, self._skip = self._skip, 0
        if self._left:
            # Nothing was to be skipped then: a header or value was cut in two.
            data, self._offset = self._left + bytes(data), self._offset - len(self._left)
        at = self._steps(data, start)
        self._skip = max(0, at - len(data))
        self._left = bytes(data[at:])
        self._offset += len(data)

    def finish(self) -> Mapping[int, bytes]:
        """Return the values that were asked for and are there, by tag.

        Raises:
            UnreadableInstanceError: the data set is not whole.
        """
        if self._skip or self._left or self._levels:
            raise UnreadableInstanceError(f"the data set breaks off at byte {self._offset}")
        return self.values

    def _steps(self, data: bytes | memoryview, at: int) -> int:
        """Step from header to header; return where the first one is that is not here whole."""
        end = len(data)
        if not self._offset and data[:2] == _FILE_META_GROUP:
            raise self._broken(at, "it begins with file meta information")
        while end - at >= _HEADER:
            holds, implicit = self._levels[-1] if self._levels else (_ELEMENTS, self._implicit)
            if holds is _ITEMS:
                at = self._item(data, at, implicit)
                continue
            at = self._plain_elements(data, at, implicit)
            if end - at < _HEADER:
                break
            after = self._element(data, at, implicit)
            if after == at:
                break
            at = after
        return at

    def _plain_elements(self, data: bytes | memoryview, at: int, implicit: bool) -> int:  # noqa: FBT001 - of the level
        """Step over elements of which only the length matters, and so over nearly all there are.

        The loop is as short as it can be: it is run for each element of each instance.
        """
        last, wanted = len(data) - _HEADER, self._headers.wanted_numbers
        if implicit:
            tag_alone = self._headers.tag_alone
            while at <= last:
                tag, length = tag_alone(data, at)
                if length == UNDEFINED or tag in wanted or tag & 0xFFFF == _DELIMITING_GROUP:
                    break
                at += _HEADER + length
            return at
        tag_and_vr, plain = self._headers.tag_and_vr, self._headers.plain
        while at <= last:
            tag, vr, length = tag_and_vr(data, at)
            # What delimits has no VR, so it is not plain either.
            if vr not in plain or tag in wanted:
                break
            at += _HEADER + length
        return at

    def _item(self, data: bytes | memoryview, at: int, implicit: bool) -> int:  # noqa: FBT001 - of the level
        group, element, length = self._headers.tag_length(data, at)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            self._levels.pop()
            return at + _HEADER
        if tag != ITEM:
            raise self._broken(at, "an item of a sequence is missing")
        if length != UNDEFINED:
            return at + _HEADER + int(length)
        self._enter(at, _ELEMENTS, implicit)
        return at + _HEADER

    def _element(self, data: bytes | memoryview, at: int, implicit: bool) -> int:  # noqa: FBT001 - of the level
        """Step over one element; return `at` itself when more of it must come first."""
        if implicit:
            group, element, length = self._headers.tag_length(data, at)
            header, vr = _HEADER, b""
        else:
            group, element, vr, length = self._headers.tag_vr_length(data, at)
            header = _HEADER
        tag = group << 16 | element
        if tag == ITEM_END and self._levels:
            self._levels.pop()
            return at + _HEADER
        if not implicit and vr not in _SHORT:
            if vr not in _LONG:
                raise self._broken(at, "an element has no value representation")
            if len(data) - at < _LONG_HEADER:
                return at
            (length,) = self._headers.length(data, at + _HEADER)
            header = _LONG_HEADER
        if length == UNDEFINED:
            # What is UN and of undefined length has no VRs inside (PS3.5 section 6.2.2, note 4).
            self._enter(at, _ITEMS, implicit or vr == b"UN")
            return at + header
        if tag in self._wanted and not self._levels and length <= LONGEST_VALUE:
            if len(data) - at < header + length:
                return at
            self.values[tag] = bytes(data[at + header : at + header + length])
        return at + header + int(length)

    def _enter(self, at: int, holds: bool, implicit: bool) -> None:  # noqa: FBT001 - a level's two words
        if len(self._levels) >= DEEPEST_LEVEL:
            raise self._broken(at, f"sequences are nested deeper than {DEEPEST_LEVEL} levels")
        self._levels.append((holds, implicit))

    def _broken(self, at: int, why: str) -> UnreadableInstanceError:
        return UnreadableInstanceError(f"the data set is broken at byte {self._offset + at}: {why}")


class DeflatedWalk:
    """A walk over a deflated data set: only its beginning is inflated, the rest is not proven."""

    def __init__(self, wanted: Collection[int]) -> None:
        self._walk = Walk("", wanted)
        # Negative: PS3.5 A.5 has the bare deflate stream, without zlib's header.
        self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._room = INFLATED_BYTES

    def feed(self, data: bytes | memoryview) -> None:
        """Walk on over the next bytes; raises as `Walk.feed` does."""
        if not self._room:
            return
        try:
            inflated = self._inflate.decompress(data, self._room)
        except zlib.error:
            raise UnreadableInstanceError("the data set is not deflated as announced") from None
        self._room -= len(inflated)
        self._walk.feed(inflated)

    def finish(self) -> Mapping[int, bytes]:
        """Return the values that were asked for; raises as `Walk.finish` does."""
        if not self._room:
            return self._walk.values
        if not self._inflate.eof:
            raise UnreadableInstanceError("the deflated data set breaks off")
        return self._walk.finish()


def walk_of(transfer_syntax_uid: str, wanted: Collection[int]) -> Walk | DeflatedWalk:
    """Return the walk that fits a transfer syntax."""
    if transfer_syntax_uid in _DEFLATED:
        return DeflatedWalk(wanted)
    return Walk(transfer_syntax_uid, wanted)
