"""Who is let in to which AE title, on which port; DCMTK's own words are asserted."""

import socket
from pathlib import Path

import pytest

from tests.receive.hostile import unmoved
from tests.receive.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    MR,
    VERIFICATION,
    Log,
    config,
    free_port,
    receiving,
    run,
)
from tests.receive.wire import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, associate_rq, raw
from tests.support import association

SOURCES = """
sources:
  CT1: {ae_title: CT1, host: 127.0.0.1}
  SCU: {ae_title: SCU, host: 127.0.0.1}
  MR1: {ae_title: MR1, host: 10.1.2.3}
  MR2: {ae_title: MR1, host: 192.168.0.0/16}
  NET: {ae_title: NET, host: 127.0.0.0/8}
  SIX: {ae_title: SIX, host: '::1'}
"""


def echo(port: int, called: str, calling: str = "ECHOSCU") -> tuple[int, str]:
    """Echo by DCMTK; return its exit code and all that it said."""
    done = run("echoscu", "-v", "-aet", calling, "-aec", called, "127.0.0.1", port)
    return done.returncode, done.stdout


def rejection(port: int, called: bytes, calling: bytes) -> tuple[int, ...]:
    """Return result, source and reason of the A-ASSOCIATE-RJ that the titles get."""
    with raw(port) as peer:
        peer.send(associate_rq(called, calling))
        kind, content = peer.read()
    assert kind == ASSOCIATE_RJ
    return tuple(content[1:])


@pytest.mark.dcmtk
def test_every_title_answers_an_echo_on_the_one_port(tmp_path: Path) -> None:
    """All configured AE titles are reached on `dicom.port` by DCMTK's C-ECHO."""
    with receiving(tmp_path, config("", "CHEST", "HEAD", "'TWO WORDS'")) as adapter:
        assert len(adapter.ports) == 1
        for title in ("CHEST", "HEAD", "TWO WORDS"):
            code, said = echo(adapter.port, title)
            assert (code, "Received Echo Response (Success)" in said) == (0, True)


@pytest.mark.dcmtk
def test_a_title_with_a_port_of_its_own_is_reached_there_only(tmp_path: Path) -> None:
    """Each port knows the AE titles that are configured for it, and no others."""
    own = free_port()
    with receiving(tmp_path, config("", "CHEST", f"HEAD: port: {own}")) as adapter:
        shared, head = adapter.ports
        assert head == own
        found = {
            (title, port): echo(port, title)[0] == 0
            for title in ("CHEST", "HEAD")
            for port in (shared, own)
        }
    assert found == {
        ("CHEST", shared): True,
        ("CHEST", own): False,
        ("HEAD", shared): False,
        ("HEAD", own): True,
    }


@pytest.mark.dcmtk
def test_an_unknown_called_title_is_rejected_1_1_7(tmp_path: Path) -> None:
    """DCMTK is told that the called AE title is not recognized, and so are we all."""
    with receiving(tmp_path) as adapter, unmoved(adapter):
        code, said = echo(adapter.port, "NOBODY")
        assert rejection(adapter.port, b"NOBODY", b"SCU") == (1, 1, 7)
    assert code != 0
    assert "Result: Rejected Permanent, Source: Service User" in said
    assert "Reason: Called AE Title Not Recognized" in said


@pytest.mark.dcmtk
def test_case_counts_and_spaces_around_do_not(tmp_path: Path) -> None:
    """AE titles are compared as PS3.5 says: by case, without leading and trailing spaces."""
    with receiving(tmp_path) as adapter:
        assert echo(adapter.port, "test")[0] != 0
        assert echo(adapter.port, "  TEST")[0] == 0


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("calling", "why"),
    [
        ("XX1", "calling AE title matches no source"),
        ("MR1", "address matches no source of this calling AE title"),
        ("SIX", "address matches no source of this calling AE title"),
    ],
)
def test_an_unknown_source_is_rejected_1_1_3(
    tmp_path: Path, log: Log, calling: str, why: str
) -> None:
    """With reject_unknown_sources, AE title and address must belong to one source."""
    text = config("reject_unknown_sources: true", more=SOURCES)
    with receiving(tmp_path, text) as adapter, unmoved(adapter):
        code, said = echo(adapter.port, "TEST", calling)
        assert rejection(adapter.port, b"TEST", calling.encode()) == (1, 1, 3)
        (seen,) = adapter.listener.rejections()
    assert code != 0
    assert "Reason: Calling AE Title Not Recognized" in said
    assert (seen.calling_ae_title, seen.address, seen.why) == (calling, "127.0.0.1", why)
    assert seen.count == 2
    told = [(line["level"], line["rejection"]) for line in log.of("association.rejected")]
    assert told == [("warning", "1/1/3")] * 2


@pytest.mark.dcmtk
@pytest.mark.parametrize("calling", ["CT1", "NET"])
def test_a_known_source_gets_in_by_address_and_by_network(tmp_path: Path, calling: str) -> None:
    """A source is one address or a whole network."""
    with receiving(tmp_path, config("reject_unknown_sources: true", more=SOURCES)) as adapter:
        assert echo(adapter.port, "TEST", calling)[0] == 0


@pytest.mark.dcmtk
def test_any_source_gets_in_when_none_is_required(tmp_path: Path) -> None:
    """Sources alone do not close the door; reject_unknown_sources does."""
    with receiving(tmp_path, config(more=SOURCES)) as adapter:
        assert echo(adapter.port, "TEST", "XX1")[0] == 0


@pytest.mark.parametrize(
    "calling",
    [b"", b" " * 16, b"CT\n1", b"CT\0\0", b"CT\\1", b"CT\x1b[31m", b"C\xc3\xa91", b"\xff" * 16],
)
def test_a_calling_title_outside_the_repertoire_is_rejected_1_1_3(
    tmp_path: Path, log: Log, calling: bytes
) -> None:
    """Blank, control characters, backslash and other than ASCII: rejected, never aborted."""
    with receiving(tmp_path) as adapter, unmoved(adapter):
        assert rejection(adapter.port, b"TEST", calling) == (1, 1, 3)
    (line,) = log.of("association.rejected")
    assert str(line["calling"]).isprintable()
    assert str(line["calling"]).isascii()


@pytest.mark.parametrize("called", [b"", b"TEST\0", b"TE\nST", b"T\xcbST", b"TEST\n"])
def test_a_called_title_outside_the_repertoire_is_rejected_1_1_7(
    tmp_path: Path, log: Log, called: bytes
) -> None:
    """A called AE title that only looks like ours is not ours."""
    text = config("", "TEST", "'T?ST'", "'TE?ST'")
    with receiving(tmp_path, text) as adapter, unmoved(adapter):
        assert rejection(adapter.port, called, b"SCU") == (1, 1, 7)
    (line,) = log.of("association.rejected")
    assert str(line["called"]).isprintable()
    assert str(line["called"]).isascii()


def test_ipv6_is_listened_on_and_matched(tmp_path: Path) -> None:
    """An IPv6 listener answers, and its sources match by IPv6 address."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    text = config("reject_unknown_sources: true", more=SOURCES).replace("127.0.0.1", "'::1'", 1)
    with receiving(tmp_path, text) as adapter:
        assert adapter.listener.addresses[0] == f"[::1]:{adapter.port}"
        answers = []
        for calling in (b"SIX", b"CT1"):
            with raw(adapter.port, "::1") as peer:
                peer.send(associate_rq(calling=calling))
                answers.append(peer.read()[0])
    assert answers == [ASSOCIATE_AC, ASSOCIATE_RJ]


def test_ipv4_behind_a_double_listener_is_matched_as_ipv4(tmp_path: Path) -> None:
    """An address that a double listener shows as ::ffff:127.0.0.1 is 127.0.0.1 for sources."""
    text = config("reject_unknown_sources: true", more=SOURCES).replace("127.0.0.1", "'::'", 1)
    with receiving(tmp_path, text) as adapter, raw(adapter.port) as peer:
        peer.send(associate_rq(calling=b"NET"))
        assert peer.read()[0] == ASSOCIATE_AC


def test_a_request_that_is_no_dicom_is_aborted_or_closed_at_once(tmp_path: Path) -> None:
    """A port scan by HTTP gets no association, and the next peer gets one."""
    with receiving(tmp_path) as adapter:
        with raw(adapter.port) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: adapter\r\n\r\n")
            assert peer.read()[0] in {ABORT, 0}
        with association(adapter.port) as opened:
            assert opened.is_established


def test_the_verification_class_needs_no_configuration(tmp_path: Path) -> None:
    """C-ECHO is answered beside storage, also where accepted_sop_classes names storage alone."""
    text = config("", "TEST: accepted_sop_classes: [CTImageStorage]")
    contexts = [(VERIFICATION, IMPLICIT), (CT, EXPLICIT), (MR, EXPLICIT)]
    with (
        receiving(tmp_path, text) as adapter,
        association(adapter.port, contexts=contexts) as opened,
    ):
        assert opened.send_c_echo().Status == 0x0000
        accepted = [context.abstract_syntax for context in opened.accepted_contexts]
    assert accepted == [VERIFICATION, CT]
