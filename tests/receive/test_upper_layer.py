"""What is answered to PDUs that are broken, misplaced or meant to harm (PS3.8 section 9)."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receive.hostile import (
    COMMAND,
    CONTEXTS,
    CT_CONTEXT,
    DATA,
    LAST,
    MR_CONTEXT,
    REFUSED_CONTEXT,
    aborted,
    command,
    established,
    good_instance,
    is_closed,
    item,
    p_data,
    request,
    store,
    unmoved,
    value,
)
from tests.receive.support import CT, EXPLICIT, IMPLICIT, Log, Receiving, receiving
from tests.receive.wire import ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP, RELEASE_RQ, pdu, raw

GOOD = good_instance()
STORE = value(CT_CONTEXT, COMMAND | LAST, command(GOOD.fields))
ENDLESS = struct.pack(">BxL", 0x04, 0xFFFFFFFF)


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener alone."""
    with receiving(tmp_path) as running:
        yield running


BEFORE = {
    "P-DATA": (p_data(STORE), "2/2"),
    "A-RELEASE-RQ": (RELEASE_RQ, "2/2"),
    "an unknown PDU": (pdu(0x0F, b"x"), "2/1"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "2/1"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "2/1"),
    "4 GiB": (struct.pack(">BxL", 0x01, 0xFFFFFFFF), "2/6"),
    "more than 1 MiB": (struct.pack(">BxL", 0x01, 2**20 + 1) + bytes(1000), "2/6"),
    "5 MiB, all of it": (pdu(0x01, bytes(5 * 2**20)), "2/6"),
    "too short": (pdu(0x01, bytes(67)), "2/6"),
    "no context": (request([]), "2/6"),
    "an id twice": (request([CONTEXTS[0], CONTEXTS[0]]), "2/6"),
    "an even id": (request([(2, CT, (EXPLICIT,))]), "2/6"),
    "id 0": (request([(0, CT, (EXPLICIT,))]), "2/6"),
    "129 contexts": (request([(n % 256, CT, (EXPLICIT,)) for n in range(1, 259, 2)]), "2/6"),
    "no transfer syntax": (request([(1, CT, ())]), "2/6"),
    "a cut item": (request(more=b"\x20\0\xff\xff\0"), "2/6"),
    "100 000 items": (request(more=item(0x99, b"") * 100_000), "2/6"),
    "100 000 sub-items": (request(more=item(0x50, item(0x54, b"") * 16_000)), "2/6"),
    "two application contexts": (request(more=item(0x10, b"1.2")), "2/6"),
}


@pytest.mark.parametrize("case", BEFORE)
def test_before_an_association_it_is_aborted_and_closed(
    adapter: Receiving, log: Log, case: str
) -> None:
    """The peer is told what is wrong, closed within a second, and costs one line and no time."""
    content, abort = BEFORE[case]
    with unmoved(adapter):
        before, cpu = len(log.lines), time.process_time()
        with raw(adapter.port) as peer:
            began = time.monotonic()
            peer.send(content)
            assert aborted(peer) == abort
            assert is_closed(peer)
            assert time.monotonic() - began < 1
        assert time.process_time() - cpu < 0.5
        log.wait_for("association.aborted")
        assert len(log.lines) == before + 1


ESTABLISHED = {
    "an unknown PDU": (pdu(0x0F, b"x"), "2/1"),
    "A-ASSOCIATE-RQ": (request(), "2/2"),
    "A-ASSOCIATE-AC": (pdu(0x02, bytes(68)), "2/2"),
    "A-ASSOCIATE-RJ": (pdu(0x03, bytes(4)), "2/2"),
    "A-RELEASE-RP": (pdu(0x06, bytes(4)), "2/2"),
    "a release of 5 bytes": (pdu(0x05, bytes(5)), "2/6"),
    "4 GiB": (ENDLESS, "2/6"),
    "one byte more than was allowed": (pdu(0x04, bytes(131_073)), "2/6"),
    "a value of no length": (pdu(0x04, struct.pack(">LBB", 0, CT_CONTEXT, 3)), "2/6"),
    "a value of length 1": (pdu(0x04, struct.pack(">LBB", 1, CT_CONTEXT, 3)), "2/6"),
    "a value longer than its PDU": (pdu(0x04, struct.pack(">LBB", 99, CT_CONTEXT, 3)), "2/6"),
    "half a value header": (pdu(0x04, b"\0\0\0"), "2/6"),
    "a context nobody proposed": (p_data(value(99, COMMAND | LAST, b"")), "2/5"),
    "a refused context": (p_data(value(REFUSED_CONTEXT, COMMAND | LAST, b"")), "2/5"),
    "data before a command": (p_data(value(CT_CONTEXT, DATA | LAST, b"data")), "2/5"),
    "data on another context": (p_data(STORE, value(MR_CONTEXT, DATA | LAST, GOOD.data)), "2/5"),
    "a command within data": (p_data(STORE, value(CT_CONTEXT, DATA, b""), STORE), "2/5"),
    "no command set": (p_data(value(CT_CONTEXT, COMMAND | LAST, b"DOE^JOHN")), "2/6"),
    "an empty command set": (p_data(value(CT_CONTEXT, COMMAND | LAST, b"")), "2/6"),
    "no command field": (
        p_data(value(CT_CONTEXT, COMMAND | LAST, command({**GOOD.fields, 0x100: None}))),
        "2/6",
    ),
    "a command set over 64 KiB": (p_data(value(CT_CONTEXT, COMMAND, bytes(65_537))), "2/6"),
    "endless command fragments": (p_data(value(CT_CONTEXT, COMMAND, bytes(60_000))) * 2, "2/6"),
}


@pytest.mark.parametrize("case", ESTABLISHED)
def test_within_an_association_it_is_aborted(adapter: Receiving, log: Log, case: str) -> None:
    """The association ends with the reason of PS3.8 table 9-26, and nothing is stored of it."""
    content, abort = ESTABLISHED[case]
    with unmoved(adapter):
        stored = len(adapter.stored())
        with established(adapter) as peer:
            peer.send(content)
            assert aborted(peer) == abort
            assert is_closed(peer)
        assert len(adapter.stored()) == stored
    assert "DOE" not in log.text


REJECTED = {
    "another application context": (request(application=b"1.2.3"), (1, 1, 2)),
    "another protocol version": (request(version=2), (1, 2, 2)),
}


@pytest.mark.parametrize("case", REJECTED)
def test_it_is_rejected_by_the_layer_that_minds(adapter: Receiving, case: str) -> None:
    """What the standard has a rejection for is rejected, not aborted."""
    content, codes = REJECTED[case]
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(content)
        kind, answer = peer.read()
        assert (kind, tuple(answer[1:4])) == (ASSOCIATE_RJ, codes)
        assert is_closed(peer)


ACCEPTED = {
    "an unknown sub-item": request(user=item(0x77, b"\xff" * 50)),
    "an unknown item": request(more=item(0x99, b"\xff" * 50)),
    "several versions": request(version=3),
    "windows for asynchronous operations": request(user=item(0x53, struct.pack(">HH", 8, 8))),
    "a user identity that nobody asks for": request(
        user=item(0x58, b"\x02\x01\0\x04USER\0\x06SECRET")
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_beyond_us_is_ignored(adapter: Receiving, log: Log, case: str) -> None:
    """The association is accepted, and answered without any of it."""
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(ACCEPTED[case])
        kind, answer = peer.read()
        assert kind == ASSOCIATE_AC
        assert not any(item(kind, b"")[:2] in answer[68:] for kind in (0x53, 0x58, 0x59))
        peer.send(store(good_instance()))
        assert peer.status() == 0
    assert "SECRET" not in log.text


def results(answer: bytes) -> dict[int, int]:
    """Return the result of each presentation context in an A-ASSOCIATE-AC (PS3.8 table 9-18)."""
    found: dict[int, int] = {}
    at = 68
    while at < len(answer):
        kind, length = struct.unpack_from(">BxH", answer, at)
        if kind == 0x21:
            found[answer[at + 4]] = answer[at + 6]
        at += 4 + length
    return found


PROPOSED: dict[int, tuple[str, str, int]] = {
    1: (CT, EXPLICIT, 0),
    3: ("1.2.840.10008.1.20.1", IMPLICIT, 3),  # Storage Commitment Push Model
    5: ("1.2.840.10008.5.1.4.1.2.2.1", IMPLICIT, 3),  # Study Root Query/Retrieve - FIND
    7: ("1.3.12.2.1107.5.9.1", EXPLICIT, 3),  # private
    9: ("1.2.3.4.5", EXPLICIT, 3),
    11: (CT, "1.2.3.4.5", 4),
}


def test_a9_each_context_gets_its_own_result(adapter: Receiving) -> None:
    """What is offered is taken beside storage commitment and others, which are not."""
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(request([(n, uid, (syntax,)) for n, (uid, syntax, _) in PROPOSED.items()]))
        kind, answer = peer.read()
        assert kind == ASSOCIATE_AC
        assert results(answer) == {n: result for n, (*_, result) in PROPOSED.items()}
        peer.send(store(good_instance()))
        assert peer.status() == 0
        peer.send(p_data(value(3, COMMAND | LAST, command({0x0100: 0x0130}))))
        assert aborted(peer) == "2/5"


def test_no_context_at_all_is_still_an_answer(adapter: Receiving) -> None:
    """A peer whose every context is refused gets each result, and may release."""
    contexts = [(1, "1.2.3.4", (EXPLICIT,)), (3, CT, ("1.2.3.5",))]
    with unmoved(adapter), raw(adapter.port) as peer:
        peer.send(request(contexts))
        kind, answer = peer.read()
        assert kind == ASSOCIATE_AC
        assert results(answer) == {1: 3, 3: 4}
        peer.send(RELEASE_RQ)
        assert peer.read()[0] == RELEASE_RP


def test_a_release_in_the_middle_of_a_message_is_answered(adapter: Receiving, log: Log) -> None:
    """A-RELEASE-RP comes, the part is gone, and the log says how many were stored."""
    with unmoved(adapter):
        with established(adapter) as peer:
            peer.send(p_data(STORE, value(CT_CONTEXT, DATA, GOOD.data[:100])) + RELEASE_RQ)
            assert peer.read()[0] == RELEASE_RP
            assert is_closed(peer)
        (line,) = log.wait_for("association.ended", 2)[1:]
        assert line["stored"] == 0


@pytest.mark.parametrize("more", [RELEASE_RQ, pdu(0x06, bytes(4)), p_data(STORE), pdu(0x0F, b"x")])
def test_a30_what_comes_after_a_release_is_passed_over(
    adapter: Receiving, log: Log, more: bytes
) -> None:
    """The release is answered once, and nothing else is said any more (PS3.8 table 9-10)."""
    with unmoved(adapter), established(adapter) as peer:
        peer.send(RELEASE_RQ + more)
        assert peer.read()[0] == RELEASE_RP
        assert is_closed(peer)
    assert log.of("association.aborted") == []


def test_a19_a_port_scan_is_one_line(adapter: Receiving, log: Log) -> None:
    """Who only looks whether the port is open leaves that behind, and nothing else."""
    with unmoved(adapter):
        before = len(log.lines)
        with raw(adapter.port):
            pass
        (line,) = log.wait_for("association.none")
        assert log.lines[before:] == [line]
