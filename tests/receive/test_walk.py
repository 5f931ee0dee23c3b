"""The walk over a data set's structure: whole is whole, broken is broken, however it arrives."""

import tracemalloc
import zlib
from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicom_adapter.errors import UnreadableInstanceError
from dicom_adapter.receive.part10 import IDENTIFYING
from dicom_adapter.receive.walk import DEEPEST_LEVEL, walk_of
from tests.receive.support import data_set_of
from tests.receive.test_byte_identity import BROKEN, examples

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

SEQUENCE = pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
ITEM = pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = pack("<HHI", 0xFFFE, 0xE0DD, 0)


def walked(data: bytes, syntax: str = EXPLICIT, cuts: tuple[int, ...] = ()) -> Mapping[int, bytes]:
    """Walk over a data set that arrives cut at these places."""
    walk = walk_of(syntax, IDENTIFYING)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        walk.feed(memoryview(data)[begin:end])
    return walk.finish()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _tell(element: RawDataElement | DataElement) -> int:
    """Return where an element's value begins."""
    place = element.value_tell if isinstance(element, RawDataElement) else element.file_tell
    return int(place or 0)


def nested(levels: int) -> bytes:
    """Return sequences of undefined length inside each other."""
    return (SEQUENCE + ITEM) * levels + (ITEM_END + SEQUENCE_END) * levels


def syntax_of(path: Path) -> str:
    """Return the transfer syntax of a Part 10 file."""
    return str(read_file_meta_info(path).TransferSyntaxUID)


WHOLE = [
    path
    for path in examples()
    if path.name not in {*BROKEN, "meta_missing_tsyntax.dcm"} and path.stat().st_size < 1_000_000
]


def test_the_walk_reads_of_every_example_what_pydicom_reads() -> None:
    """Each example is whole, and its UIDs and number are those that pydicom decodes."""
    for path in WHOLE:
        values = walked(data_set_of(path), syntax_of(path))
        dataset = dcmread(path, stop_before_pixels=True)
        expected = {tag: _text(dataset[tag].value) for tag in IDENTIFYING if tag in dataset}
        found = {tag: value.decode("ascii").strip("\0 ") for tag, value in values.items()}
        assert found == expected, path.name


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_breaks_off_or_is_encoded_otherwise_is_refused(name: str) -> None:
    """A value that is not there whole, or an element without the VR that was announced, is told."""
    (path,) = (path for path in examples() if path.name == name)
    with pytest.raises(UnreadableInstanceError, match="at byte"):
        walked(data_set_of(path), syntax_of(path))


def test_a_data_set_cut_inside_an_element_is_refused_wherever_the_cut_is() -> None:
    """Only between two elements of the top level is a shorter data set a whole one."""
    (path,) = (path for path in examples() if path.name == "MR_small.dcm")
    data = data_set_of(path)
    read = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    raw = [read.get_item(tag) for tag in read.keys()]  # noqa: SIM118 - iterating decodes
    starts = {_tell(e) - (12 if e.VR in EXPLICIT_VR_LENGTH_32 else 8) for e in raw}
    assert len(starts) > 50
    for cut in range(1, 3000):
        try:
            walked(data[:cut])
        except UnreadableInstanceError:
            continue
        assert cut in starts


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["MR_small.dcm", "rtplan.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"]),
    cuts=st.tuples(*[st.integers(0, 10**6)] * 5),
)
def test_how_the_bytes_arrive_changes_nothing(name: str, cuts: tuple[int, ...]) -> None:
    """The same data set in other pieces gives the same values."""
    (path,) = (path for path in examples() if path.name == name)
    data, syntax = data_set_of(path), syntax_of(path)
    assert walked(data, syntax, cuts) == walked(data, syntax)


@settings(deadline=None, max_examples=300)
@given(
    data=st.binary(max_size=400),
    syntax=st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN]),
    cut=st.integers(0, 400),
)
def test_random_bytes_are_walked_or_refused(data: bytes, syntax: str, cut: int) -> None:
    """Nothing that a peer sends raises anything else, in one piece or in two."""
    outcomes = []
    for cuts in ((), (cut,)):
        try:
            outcomes.append(dict(walked(data, syntax, cuts)))
        except UnreadableInstanceError:
            outcomes.append({-1: b""})
    assert outcomes[0] == outcomes[1]


def test_sequences_are_followed_as_deep_as_they_go_but_not_for_ever() -> None:
    """A thousand levels are walked without recursion; an attack by levels is refused."""
    assert walked(nested(1000)) == {}
    with pytest.raises(UnreadableInstanceError, match="nested deeper"):
        walked(nested(DEEPEST_LEVEL))
    with pytest.raises(UnreadableInstanceError, match="breaks off"):
        walked(nested(3)[:-8])


def test_an_unknown_value_of_undefined_length_is_implicit_inside() -> None:
    """What is UN and of undefined length holds items without value representations."""
    inside = pack("<HHI", 0x0009, 0x1001, 4) + b"abcd"
    data = pack("<HH2sHI", 0x0009, 0x1000, b"UN", 0, 0xFFFFFFFF) + ITEM + inside + ITEM_END
    after = pack("<HH2sH", 0x0020, 0x000D, b"UI", 4) + b"1.2\0"
    assert walked(data + SEQUENCE_END + after) == {0x0020000D: b"1.2\0"}


def test_a_deflate_bomb_is_inflated_to_a_bound() -> None:
    """64 MiB of zeros behind the UIDs cost neither memory nor an answer."""
    element = pack("<HH2sH", 0x0008, 0x0018, b"UI", 4) + b"1.2\0"
    pixels = pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 1 << 26) + bytes(1 << 26)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(element + pixels) + deflater.flush()
    tracemalloc.start()
    assert walked(bomb, DEFLATED) == {0x00080018: b"1.2\0"}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
