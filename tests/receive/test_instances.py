"""What becomes of instances that are odd, broken, cut off or here already, byte by byte."""

import socket
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.filereader import read_file_meta_info
from pydicom.uid import generate_uid
from sqlalchemy import text

from tests.receive.hostile import (
    COMMAND,
    CT_CONTEXT,
    DATA,
    LAST,
    Instance,
    command,
    established,
    good_instance,
    p_data,
    request,
    store,
    unmoved,
    value,
)
from tests.receive.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Log,
    Receiving,
    config,
    data_set_of,
    receiving,
)
from tests.receive.test_deadlines import parts
from tests.receive.test_negotiation import BIG_ENDIAN, NOT_FOR_STORAGE
from tests.receive.wire import ASSOCIATE_AC, Raw, associate_rq, pdu, raw
from tests.torture.adapter import wait_until

# pydicom, which reads what was stored, warns of what is odd there.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

DEFLATED = "1.2.840.10008.1.2.1.99"
#: Those whose data sets are deflated as a whole (PS3.5 sections A.5, A.7, A.12).
ALL_DEFLATED = {DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
CUT_BYTES = 100_000
UNDEFINED = 0xFFFFFFFF
MISMATCHED, CANNOT_UNDERSTAND = 0xA900, 0xC000


class Element(NamedTuple):
    """An element of a data set; a length other than its content's is told where there is one."""

    tag: int
    vr: bytes
    content: bytes
    length: int | None = None

    def encode(self, order: str = "<", *, implicit: bool = False) -> bytes:
        """Return it as it is sent."""
        length = len(self.content) if self.length is None else self.length
        head = struct.pack(f"{order}HH", self.tag >> 16, self.tag & 0xFFFF)
        if implicit:
            return head + struct.pack(f"{order}L", length) + self.content
        if self.vr in {b"OB", b"OW", b"SQ", b"UN", b"UT"}:
            return head + self.vr + struct.pack(f"{order}2xL", length) + self.content
        return head + self.vr + struct.pack(f"{order}H", length) + self.content


def uid_element(tag: int, uid: str) -> Element:
    """Return an element with a UID."""
    return Element(tag, b"UI", uid.encode() + bytes(len(uid) % 2))


def identity(uid: str) -> list[Element]:
    """Return what no instance goes without."""
    return [
        uid_element(0x00080016, CT),
        uid_element(0x00080018, uid),
        uid_element(0x0020000D, "1.2.3"),
        uid_element(0x0020000E, "1.2.3.4"),
    ]


def encoded(elements: Iterable[Element], order: str = "<", *, implicit: bool = False) -> bytes:
    """Return a data set, in the order of its tags."""
    return b"".join(e.encode(order, implicit=implicit) for e in sorted(elements))


def deflated(content: bytes) -> bytes:
    """Return a data set in the deflated transfer syntax (PS3.5 section A.5)."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def items(content: bytes, levels: int = 1) -> bytes:
    """Return sequences of undefined length inside each other, with a content in the innermost."""
    begin = Element(0x00081140, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED), UNDEFINED)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return begin.encode() * levels + content + end * levels


# Pixels in fragments (PS3.5 section A.4), of which nobody could decode anything.
FRAGMENTS = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, 6) + b"\xff\xd8\xff\0\1\2"
PIXELS = Element(
    0x7FE00010, b"OB", FRAGMENTS + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), UNDEFINED
).encode()
NAME = 0x00100010


def named(name: bytes, character_set: bytes | None) -> list[Element]:
    """Return a patient's name in a character set."""
    found = [Element(NAME, b"PN", name)]
    if character_set is not None:
        found.append(Element(0x00080005, b"CS", character_set))
    return found


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener alone."""
    with receiving(tmp_path) as running:
        yield running


#: What it is called, its SOP Instance UID in the command, in the data set, and what else is there.
KEPT: dict[str, tuple[bytes, str, bytes]] = {
    "b15 a leading zero": (b"1.02.3", "1.02.3", b""),
    "b15 a leading dot": (b".1.2", ".1.2", b""),
    "b15 trailing spaces": (b"1.2.3.9   ", "1.2.3.9 ", b""),
    **{
        name: (uid.encode(), uid, more)
        for name, more in {
            "b22 an empty patient": encoded(
                [Element(NAME, b"PN", b""), Element(0x00100020, b"LO", b"")]
            ),
            "b22 10 000 characters": encoded(named(b"DOE^JOHN" * 1250, None)),
            "b23 an odd length": encoded([Element(NAME, b"PN", b"DOE")]),
            "b23 another VR": encoded([Element(NAME, b"US", b"DOE^JOHN")]),
            "b23 undefined lengths": items(items(b"")) + PIXELS,
            "b23 1000 levels": items(b"", 1000),
            "b26 ISO 2022": encoded(
                named(b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", b"\\ISO 2022 IR 87 ")
            ),
            "b26 GB18030": encoded(named("王^小东".encode("gb18030"), b"GB18030 ")),
            "b26 UTF-8": encoded(named("王^小东 ".encode(), b"ISO_IR 192")),
            "b26 none is named": encoded(named(b"\xff\xfe\x80\x81", None)),
            "b26 none that exists": encoded(named(b"\xc4nneli", b"NO SUCH ")),
            "b27 private": encoded(
                [
                    Element(0x00090010, b"LO", b"SECRET"),
                    Element(0x00091001, b"UN", bytes(range(256))),
                ]
            ),
            "b27 a command": encoded([uid_element(0x00000002, "1.2.3")]),
            "b27 file meta": encoded([uid_element(0x00020010, IMPLICIT)]),
        }.items()
        for uid in [str(generate_uid())]
    },
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_odd_is_stored_as_it_is(adapter: Receiving, log: Log, case: str) -> None:
    """Not one byte is changed, and the file is a DICOM file with that in it."""
    announced, uid, more = KEPT[case]
    instance = Instance(announced, encoded(identity(uid)) + more)
    with unmoved(adapter):
        with established(adapter) as peer:
            peer.send(store(instance))
            assert peer.status() == 0
        stored = adapter.stored()[-1]
        assert data_set_of(stored.path) == instance.data
        meta = read_file_meta_info(stored.path)
        assert (meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID) == (EXPLICIT, uid.strip())
    for told in ("DOE", "王", "SECRET", "nneli", "Yamada"):
        assert told not in log.text


UID = str(generate_uid())
REFUSED: dict[str, tuple[bytes, int]] = {
    "b16 another class": (
        encoded([uid_element(0x00080016, "1.2.840.10008.5.1.4.1.1.4"), *identity(UID)[1:]]),
        MISMATCHED,
    ),
    "b16 another instance": (encoded(identity("1.2.3")), MISMATCHED),
    "b21 no study": (encoded(e for e in identity(UID) if e.tag != 0x0020000D), CANNOT_UNDERSTAND),
    "b21 no series": (encoded(e for e in identity(UID) if e.tag != 0x0020000E), CANNOT_UNDERSTAND),
    "b23 no such VR": (
        encoded([*identity(UID), Element(NAME, b"XX", b"DOE^JOHN")]),
        CANNOT_UNDERSTAND,
    ),
    "b23 a length beyond the end": (
        encoded([*identity(UID), Element(0x7FE00010, b"OW", bytes(10), 12)]),
        CANNOT_UNDERSTAND,
    ),
    "b23 a sequence without its end": (
        encoded(identity(UID)) + items(b"", 9)[:-8],
        CANNOT_UNDERSTAND,
    ),
    "b23 5000 levels": (encoded(identity(UID)) + items(b"", 5000), CANNOT_UNDERSTAND),
    "b27 file meta in front": (
        encoded([uid_element(0x00020010, IMPLICIT), *identity(UID)]),
        CANNOT_UNDERSTAND,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_broken_is_refused(adapter: Receiving, log: Log, case: str) -> None:
    """The status says that, nothing of it stays, and the association goes on."""
    data, status = REFUSED[case]
    with unmoved(adapter):
        before = adapter.stored()
        with established(adapter) as peer:
            send_in_parts(peer, CT_CONTEXT, Instance(UID.encode(), data))
            assert peer.status() == status
            assert (adapter.stored(), len(adapter.files())) == (before, len(before))
            peer.send(store(good_instance()))
            assert peer.status() == 0
    assert "DOE" not in log.text


def send_in_parts(peer: Raw, context: int, instance: Instance) -> None:
    """Send an instance in PDUs that are not too long."""
    peer.send(p_data(value(context, COMMAND | LAST, command(instance.fields))))
    for at in range(0, len(instance.data), CUT_BYTES):
        part = instance.data[at : at + CUT_BYTES]
        is_last = at + CUT_BYTES >= len(instance.data)
        peer.send(p_data(value(context, DATA | LAST * is_last, part)))


def in_syntax(syntax: str, uid: str) -> bytes:
    """Return a data set in a transfer syntax; what is compressed in it is nothing at all."""
    elements = [*identity(uid), Element(0x00280010, b"US", b"\1\2")]
    if syntax == BIG_ENDIAN:
        return encoded(elements, ">")
    if syntax == IMPLICIT:
        return encoded(elements, implicit=True)
    return deflated(encoded(elements)) if syntax in ALL_DEFLATED else encoded(elements) + PIXELS


def test_b24_every_transfer_syntax_is_stored_as_it_is(adapter: Receiving) -> None:
    """Nothing is decoded, and each file names the syntax that its context was negotiated for."""
    syntaxes = [
        uid
        for uid, (_, kind, *_) in UID_dictionary.items()
        if kind == "Transfer Syntax" and uid not in NOT_FOR_STORAGE
    ]
    assert {IMPLICIT, EXPLICIT, BIG_ENDIAN, *ALL_DEFLATED} < set(syntaxes)
    sent: dict[str, tuple[str, bytes]] = {}
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(request([(2 * n + 1, CT, (uid,)) for n, uid in enumerate(syntaxes)]))
        assert peer.read()[0] == ASSOCIATE_AC
        for number, syntax in enumerate(syntaxes):
            uid = str(generate_uid())
            data = in_syntax(syntax, uid)
            sent[uid] = syntax, data
            send_in_parts(peer, 2 * number + 1, Instance(uid.encode(), data))
            assert peer.status() == 0, syntax
        stored = {s.sop_instance_uid: s for s in adapter.stored() if s.sop_instance_uid in sent}
        assert {
            uid: (str(read_file_meta_info(s.path).TransferSyntaxUID), data_set_of(s.path))
            for uid, s in stored.items()
        } == sent


def test_b25_a_deflate_bomb_is_stored_as_it_is(adapter: Receiving) -> None:
    """A thousand times as much as was sent is never in memory."""
    uid, size = str(generate_uid()), 256 * 2**20
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(encoded(identity(uid)))
    bomb += deflater.compress(Element(0x7FE00010, b"OW", b"", size).encode())
    for _ in range(size // 2**20):
        bomb += deflater.compress(bytes(2**20))
    bomb += deflater.flush()
    assert len(bomb) < size / 900
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(request([(CT_CONTEXT, CT, (DEFLATED,))]))
        assert peer.read()[0] == ASSOCIATE_AC
        send_in_parts(peer, CT_CONTEXT, Instance(uid.encode(), bomb))
        assert peer.status() == 0
        assert data_set_of(adapter.stored()[-1].path) == bomb


@pytest.mark.parametrize("end", ["abort", "close", "reset"])
def test_b31_what_breaks_off_touches_nothing_earlier(
    tmp_path: Path, adapter: Receiving, end: str
) -> None:
    """The whole copy of the same instance stays as it was; of the other one nothing does."""
    instance = good_instance()
    with unmoved(adapter):
        with established(adapter) as peer:
            peer.send(store(instance))
            assert peer.status() == 0
        earlier = adapter.stored()
        content = earlier[-1].path.read_bytes()
        with established(adapter) as peer:
            peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(instance.fields))))
            peer.send(p_data(value(CT_CONTEXT, DATA, instance.data[:5000])))
            wait_until(lambda: any(part.stat().st_size > 5000 for part in parts(tmp_path)))
            if end == "abort":
                peer.send(pdu(0x07, bytes(4)))
            if end == "reset":
                # Closed with an RST (socket(7), SO_LINGER of no time).
                at_once = struct.pack("ii", 1, 0)
                peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        wait_until(lambda: not parts(tmp_path))
        assert adapter.stored() == earlier
        assert earlier[-1].path.read_bytes() == content


def test_b34_the_same_bytes_again_are_stored_once(adapter: Receiving) -> None:
    """Success, over the same association and over another one; one file and one row."""
    instance = good_instance()
    with unmoved(adapter):
        before = len(adapter.stored())
        for _ in range(2):
            with established(adapter) as peer:
                peer.send(store(instance) * 2)
                assert [peer.status(), peer.status()] == [0, 0]
        assert len(adapter.stored()) == len(adapter.files()) == before + 1


def test_b35_other_bytes_of_the_same_instance_are_kept_too(adapter: Receiving) -> None:
    """Success, and each variant has a file of its own."""
    first = good_instance()
    second = first._replace(data=first.data + Element(0xFFFCFFFC, b"OB", b"\0\0").encode())
    with unmoved(adapter), established(adapter) as peer:
        peer.send(store(first) + store(second) + store(first))
        assert [peer.status() for _ in range(3)] == [0, 0, 0]
        kept = [s for s in adapter.stored() if s.sop_instance_uid == first.uid.decode()]
        assert [data_set_of(s.path) for s in kept] == [first.data, second.data]


def test_b36_two_titles_keep_their_own_copies(tmp_path: Path) -> None:
    """The same instance to both at once is two entries, each with its own file."""
    instance = good_instance()
    message = store(instance)
    with (
        receiving(tmp_path, config("", "TEST", "OTHER")) as adapter,
        unmoved(adapter),
        raw(adapter.port) as one,
        raw(adapter.port) as two,
    ):
        for peer, title in ((one, b"TEST"), (two, b"OTHER")):
            peer.send(associate_rq(title))
            assert peer.read()[0] == ASSOCIATE_AC
            peer.send(message[:-1])
        for peer in (one, two):
            peer.send(message[-1:])
        assert [one.status(), two.status()] == [0, 0]
        kept = adapter.stored("TEST")[-1], adapter.stored("OTHER")[-1]
        assert len({s.path for s in kept}) == 2
        assert [data_set_of(s.path) for s in kept] == [instance.data] * 2


def test_b40_a_move_originator_is_recorded(adapter: Receiving) -> None:
    """Who asked for the C-MOVE, and in which message."""
    instance = good_instance()
    query = text(
        "SELECT move_originator_ae_title, move_originator_message_id FROM instances"
        " WHERE sop_instance_uid = :uid"
    )
    with unmoved(adapter), established(adapter) as peer:
        peer.send(store(instance, e1030=b"MOVER", e1031=7))
        assert peer.status() == 0
        with adapter.ledger.read() as tx:
            found = tx.execute(query, {"uid": instance.uid.decode()}).one()
    assert found == ("MOVER", 7)
