"""What is answered to messages: odd commands, odd fragments, too much, and too many at a time."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_adapter.receive import intake, message
from dicom_adapter.receive.spool import Spool
from tests.receive.hostile import (
    COMMAND,
    CT_CONTEXT,
    DATA,
    ECHO,
    ECHO_CONTEXT,
    LAST,
    Fields,
    aborted,
    command,
    echo,
    established,
    good_instance,
    is_closed,
    p_data,
    request,
    send_for_ever,
    serve_well,
    store,
    unmoved,
    value,
)
from tests.receive.support import CT, VERIFICATION, Log, Receiving, config, data_set_of, receiving
from tests.receive.wire import ASSOCIATE_AC, RELEASE_RQ, raw

GOOD = good_instance()


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener alone."""
    with receiving(tmp_path) as running:
        yield running


def on_context(context: int, **changes: bytes | int | None) -> bytes:
    """Return a command of a C-STORE on a context, without a data set."""
    changed: Fields = {int(name[1:], 16): content for name, content in changes.items()}
    fields: Fields = {**GOOD.fields, 0x0800: 0x0101, **changed}
    return p_data(value(context, COMMAND | LAST, command(fields)))


ANSWERED = {
    "no data set announced": (on_context(CT_CONTEXT), 0xC000),
    "an empty data set": (store(GOOD._replace(data=b"")), 0xC000),
    "random bytes": (store(GOOD._replace(data=bytes(range(256)) * 4)), 0xC000),
    "cut in its last element": (store(GOOD._replace(data=GOOD.data[:-1])), 0xC000),
    "no SOP Instance UID": (store(GOOD, e1000=None), 0x0117),
    "an empty SOP Instance UID": (store(GOOD, e1000=b""), 0x0117),
    "a UID of 65 characters": (store(GOOD, e1000=b"1" * 65), 0x0117),
    "a path": (store(GOOD, e1000=b"../../../../tmp/escaped"), 0x0117),
    "an absolute path": (store(GOOD, e1000=b"/tmp/escaped"), 0x0117),
    "a NUL inside": (store(GOOD, e1000=b"1.2\x00.3"), 0x0117),
    "a line end and an escape": (store(GOOD, e1000=b"1.2\n\x1b[31m"), 0x0117),
    "two values": (store(GOOD, e1000=b"1.2\\1.3"), 0x0117),
    "other than ASCII": (store(GOOD, e1000=b"1.\xb2.3"), 0x0117),
    "another instance than announced": (store(GOOD, e1000=b"1.2.3"), 0xA900),
    "another class than the context's": (store(GOOD, e0002=b"1.2.840.10008.5.1.4.1.1.4"), 0x0122),
    "no class": (store(GOOD, e0002=None), 0x0122),
    "a C-STORE for verification": (
        on_context(ECHO_CONTEXT, e0002=VERIFICATION.encode()),
        0x0122,
    ),
    "a C-FIND": (store(GOOD, e0100=0x0020), 0x0211),
    "an N-CREATE": (on_context(CT_CONTEXT, e0100=0x0140), 0x0211),
    "a C-ECHO for storage": (
        p_data(value(CT_CONTEXT, COMMAND | LAST, command({**ECHO, 2: CT.encode()}))),
        0x0122,
    ),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_it_is_refused_and_the_association_lives(adapter: Receiving, log: Log, case: str) -> None:
    """The status says what is wrong, nothing is stored, and the next message is served."""
    content, status = ANSWERED[case]
    with unmoved(adapter):
        stored = len(adapter.stored())
        with established(adapter) as peer:
            peer.send(content)
            assert peer.status() == status
            assert len(adapter.stored()) == stored
            peer.send(store(good_instance()))
            assert peer.status() == 0
    assert not Path("/tmp/escaped").exists()  # noqa: S108 - where a fault would write it
    assert "\x1b" not in log.text
    assert "escaped" not in log.text


@pytest.mark.parametrize("kind", [0x0FFF, 0x8001, 0x8030])
def test_what_belongs_to_no_request_is_ignored(adapter: Receiving, log: Log, kind: int) -> None:
    """A C-CANCEL or a response that nobody waits for is logged, and nothing else."""
    fields = {0x0100: kind, 0x0120: 1, 0x0800: 0x0101, 0x0900: 0}
    with unmoved(adapter), established(adapter) as peer:
        peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(fields))))
        peer.send(echo())
        assert peer.status() == 0
        (line,) = log.wait_for("operation.ignored")
    assert line["operation"] == f"0x{kind:04X}"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_fragments_of_any_size_make_the_same_instance(adapter: Receiving, size: int) -> None:
    """However a message is cut into values, its bytes are stored as they are."""
    instance = good_instance()
    parts = [instance.data[at : at + size] for at in range(0, len(instance.data), size)]
    with unmoved(adapter), established(adapter) as peer:
        peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(instance.fields))))
        for part in parts[:-1]:
            peer.send(p_data(value(CT_CONTEXT, DATA, part)))
        peer.send(p_data())
        peer.send(p_data(value(CT_CONTEXT, DATA, b""), value(CT_CONTEXT, DATA | LAST, parts[-1])))
        assert peer.status() == 0
        assert data_set_of(adapter.stored()[-1].path) == instance.data


def test_two_messages_in_one_pdu_are_both_served(adapter: Receiving) -> None:
    """The end of a message is not the end of its PDU."""
    with unmoved(adapter), established(adapter) as peer:
        content = b"".join(store(good_instance())[6:] for _ in range(2)) + echo()[6:]
        peer.send(struct.pack(">BxL", 4, len(content)) + content)
        assert [peer.status() for _ in range(3)] == [0, 0, 0]


def test_what_is_sent_ahead_is_served_in_its_order(adapter: Receiving) -> None:
    """Fifty messages before the first answer: one at a time, and the memory stays."""
    with unmoved(adapter), established(adapter) as peer:
        made = [good_instance() for _ in range(50)]
        peer.send(b"".join(map(store, made)) + RELEASE_RQ)
        assert [peer.status() for _ in made] == [0] * 50
        assert peer.read()[0] == 0x06
        uids = [stored.sop_instance_uid.encode() for stored in adapter.stored()[1:51]]
        assert uids == [instance.uid for instance in made]


def test_a_data_set_over_the_limit_is_refused_when_it_has_come(tmp_path: Path) -> None:
    """The rest of it is read and dropped; the association goes on."""
    with (
        receiving(tmp_path, config("max_instance: 40KiB")) as adapter,
        unmoved(adapter),
        established(adapter) as peer,
    ):
        peer.send(store(GOOD._replace(data=GOOD.data + bytes(60_000))))
        assert peer.status() == 0xA700
        peer.send(store(good_instance()))
        assert peer.status() == 0


def test_an_endless_data_set_is_aborted(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to be answered who never ends."""
    monkeypatch.setattr(message, "_PATIENCE_BYTES", 2**20)
    with (
        receiving(tmp_path, config("max_instance: 40KiB")) as adapter,
        unmoved(adapter),
        established(adapter) as peer,
    ):
        peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(GOOD.fields))))
        fragment = p_data(value(CT_CONTEXT, DATA, bytes(100_000)))
        with pytest.raises(ConnectionError):
            send_for_ever(peer, fragment)
        (line,) = log.wait_for("association.aborted")
        assert line["abort"] == "2/6"


def test_b9_an_endless_data_set_leaves_the_reserve(
    adapter: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space is looked at again while it comes; the rest of it is read and dropped."""
    looks = iter([0])
    monkeypatch.setattr(intake, "_BYTES_PER_LOOK", 2**20)
    with unmoved(adapter), established(adapter) as peer:
        with monkeypatch.context() as patch:
            # As much as is asked for, and when it is looked at again less than that.
            patch.setattr(Spool, "free", lambda _: next(looks, -1))
            peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(GOOD.fields))))
            padding = struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", 0xFFFFFFFE)
            peer.send(p_data(value(CT_CONTEXT, DATA, GOOD.data + padding)))
            for _ in range(20):
                peer.send(p_data(value(CT_CONTEXT, DATA, bytes(100_000))))
            assert len(adapter.files()) == len(adapter.stored())
            peer.send(p_data(value(CT_CONTEXT, DATA | LAST, b"")))
            assert peer.status() == 0xA700
        peer.send(store(good_instance()))
        assert peer.status() == 0


def test_a8_below_the_reserve_only_storing_is_refused(
    adapter: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can be told that the disk is full is let in, and may try again over the same one."""
    with unmoved(adapter), established(adapter) as peer:
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "free", lambda _: -1)
            peer.send(store(GOOD) + echo())
            assert [peer.status(), peer.status()] == [0xA700, 0]
        peer.send(store(GOOD))
        assert peer.status() == 0


def test_a_large_instance_is_never_in_memory(adapter: Receiving) -> None:
    """300 MB of pixels go to the disk as they come."""
    size, chunk = 300 * 2**20, bytes(100_000)
    pixels = struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", size)
    before = GOOD.data[: GOOD.data.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))]
    fragment = p_data(value(CT_CONTEXT, DATA, chunk))
    with unmoved(adapter, megabytes=32), established(adapter) as peer:
        peer.send(p_data(value(CT_CONTEXT, COMMAND | LAST, command(GOOD.fields))))
        peer.send(p_data(value(CT_CONTEXT, DATA, before + pixels)))
        for _ in range(size // len(chunk)):
            peer.send(fragment)
        peer.send(p_data(value(CT_CONTEXT, DATA | LAST, bytes(size % len(chunk)))))
        assert peer.status() == 0
        assert adapter.stored()[-1].size > size


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_cut_of_the_stream_is_the_same_conversation(
    adapter: Receiving, data: st.DataObject
) -> None:
    """However TCP cuts what is sent, the same instance is stored, byte for byte."""
    stream = store(GOOD) + echo() + RELEASE_RQ
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    with established(adapter) as peer:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            peer.send(stream[start:end])
        assert [peer.status(), peer.status()] == [0, 0]
    # The same bytes are stored once: had they been others, there would be another instance.
    (stored,) = adapter.stored()
    assert data_set_of(stored.path) == GOOD.data


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_broken_conversation_breaks_nothing_else(adapter: Receiving, data: st.DataObject) -> None:
    """Bytes changed, left out or put in anywhere: an end for that peer, and none for the next."""
    stream = bytearray(request() + store(GOOD) + RELEASE_RQ)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with raw(adapter.port) as peer:
        peer.send(bytes(stream))
    serve_well(adapter)


def test_an_abort_ends_what_is_kept_meanwhile(adapter: Receiving) -> None:
    """What is whole is stored, though its sender does not wait for the answer."""
    with unmoved(adapter), established(adapter) as peer:
        peer.send(store(good_instance()) + p_data(value(99, COMMAND, b"")))
        assert peer.status() == 0
        assert aborted(peer) == "2/5"
        assert is_closed(peer)
    assert len(adapter.stored()) == 3


def test_an_association_is_answered_whatever_was_sent_with_its_request(
    adapter: Receiving,
) -> None:
    """A peer that does not wait for the A-ASSOCIATE-AC is served all the same."""
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(request() + echo() + RELEASE_RQ)
        assert peer.read()[0] == ASSOCIATE_AC
        assert peer.status() == 0
        assert peer.read()[0] == 0x06
