"""What the log says of an association, and what it never says."""

import json
import socket
import struct
from io import StringIO
from pathlib import Path

import pytest
import structlog
from pydicom.uid import UID

from dicom_adapter import logs
from dicom_adapter.config import LogSettings
from tests.receive.support import CT, EXPLICIT, IMPLICIT, MR, Log, config, receiving
from tests.receive.wire import ABORT, RELEASE_RQ, associate_rq, p_data, pdu, raw, store_rq
from tests.support import PATIENCE, ManualClock, association, make_instance, running, send

# What pydicom warns of quotes what it read; the command line keeps it off the terminal.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NAME, PATIENT = "TOPSECRET^PATIENT", "ID-998877"
STUDY, SERIES, INSTANCE = "1.2.826.77.1", "1.2.826.77.2", "1.2.826.77.3"
ABORT_RQ = pdu(0x07, bytes([0, 0, 0, 0]))
WHO = {"association", "address", "calling", "called"}


def test_every_line_of_an_association_says_which_one_and_who(tmp_path: Path, log: Log) -> None:
    """Number, AE titles and address are in each line, from its beginning to its end."""
    contexts = [(CT, EXPLICIT), ("1.2.840.10008.1.1", IMPLICIT), ("1.2.3.4", IMPLICIT)]
    with (
        receiving(tmp_path, config("", "TEST: ignored_sop_classes: [MRImageStorage]")) as adapter,
        association(adapter.port, "TEST", "SCANNER", [*contexts, (MR, EXPLICIT)]) as opened,
    ):
        opened.send_c_echo()
        opened.send_c_store(make_instance())
        bad = make_instance(StudyInstanceUID=None)
        opened.send_c_store(bad)
        ignored = make_instance(SOPClassUID=UID(MR))
        ignored.file_meta.MediaStorageSOPClassUID = UID(MR)
        opened.send_c_store(ignored)
        opened.release()
        log.wait_for("association.ended")
    lines = [line for line in log.lines if "association" in line]
    assert [line["action"] for line in lines if line["action"] != "library.complains"] == [
        "association.accepted",
        "association.contexts",
        "echo",
        "instance.stored",
        "instance.refused",
        "instance.ignored",
        "association.ended",
    ]
    for line in lines:
        assert {key: line[key] for key in WHO} == {
            "association": 1,
            "address": "127.0.0.1",
            "calling": "SCANNER",
            "called": "TEST",
        }
    assert lines[0]["contexts"] == 3
    assert lines[0]["refused_contexts"] == 1
    (contexts_line,) = log.of("association.contexts")
    assert (contexts_line["level"], contexts_line["sop_classes"]) == ("debug", ["1.2.3.4"])
    (ended,) = log.of("association.ended")
    assert (ended["stored"], ended["refused"], ended["ignored"]) == (1, 1, 1)


def test_a_rejection_says_why_with_the_values_seen(tmp_path: Path, log: Log) -> None:
    """Who reads the log need not ask the sender what it had sent."""
    with receiving(tmp_path) as adapter, raw(adapter.port) as peer:
        peer.send(associate_rq(b"TSET", b"SCANNER"))
        peer.read()
        (line,) = log.wait_for("association.rejected")
    assert line["rejection"] == "1/1/7"
    assert line["why"] == "called AE title not recognized on this port"
    assert (line["calling"], line["called"], line["address"]) == ("SCANNER", "TSET", "127.0.0.1")


def test_a_version_that_nobody_speaks_is_rejected_and_said(tmp_path: Path, log: Log) -> None:
    """Pynetdicom's own rejection, of a protocol version, is logged like ours."""
    request = bytearray(associate_rq())
    request[6:8] = struct.pack(">H", 2)
    with receiving(tmp_path) as adapter, raw(adapter.port) as peer:
        peer.send(bytes(request))
        assert tuple(peer.read()[1][1:]) == (1, 2, 2)
        (line,) = log.wait_for("association.rejected")
    assert line["rejection"] == "1/2/2"
    assert line["why"] == "Protocol version not supported"


@pytest.mark.parametrize(
    ("content", "by", "why"),
    [
        (ABORT_RQ, "the peer", "its application gave up"),
        (b"\x07\0\0\0\0\x04\0\0\2\6", "the peer", "invalid PDU parameter"),
        (pdu(0x0F, b"DOE^JOHN"), "this service", "the peer broke the protocol"),
        (p_data(b"DOE^JOHN", 0x03), "this service", "the peer broke the protocol"),
        (p_data(b"DOE^JOHN" * 9, 0x02), "this service", "the peer broke the protocol"),
    ],
)
def test_an_abort_says_who_and_why(
    tmp_path: Path, log: Log, content: bytes, by: str, why: str
) -> None:
    """Aborts name their side and their reason, and quote nothing."""
    with receiving(tmp_path) as adapter:
        with raw(adapter.port) as peer:
            peer.send(associate_rq())
            peer.read()
            peer.send(content)
            (line,) = log.wait_for("association.aborted")
            if by == "this service":
                assert peer.read()[0] == ABORT
        log.wait_for("association.ended")
    assert (line["by"], why in line["why"]) == (by, True)
    assert {*line} >= WHO
    assert "DOE" not in log.text


def test_a_lost_connection_is_no_release(tmp_path: Path, log: Log) -> None:
    """A peer that is just gone leaves a warning behind, with what had come of it."""
    with receiving(tmp_path) as adapter:
        with raw(adapter.port) as peer:
            peer.send(associate_rq())
            peer.read()
        (line,) = log.wait_for("association.lost")
    assert (line["level"], line["stored"], line["refused"]) == ("warning", 0, 0)
    assert line["why"] == "closed without release or abort"
    assert {*line} >= WHO


def test_an_idle_association_is_aborted_and_the_setting_is_named(tmp_path: Path, log: Log) -> None:
    """After dicom.timeouts.idle without a message, this service ends it and says so."""
    with (
        receiving(tmp_path, config("timeouts: {idle: 0.2}")) as adapter,
        raw(adapter.port) as peer,
    ):
        peer.send(associate_rq())
        peer.read()
        (line,) = log.wait_for("association.aborted")
    assert line["why"] == "no message for dicom.timeouts.idle=0.2 s"


def test_a_connection_that_asks_for_nothing_is_said_too(tmp_path: Path, log: Log) -> None:
    """A port scan is one line, as soon as it is over."""
    with receiving(tmp_path) as adapter:
        with raw(adapter.port):
            pass
        (line,) = log.wait_for("association.none")
    assert line["address"] == "127.0.0.1"
    assert line["seconds"] < PATIENCE


@pytest.mark.parametrize(
    ("calling", "called"),
    [
        (b"A\nFAKE LINE", b"TEST"),
        (b"A\x1b[2J\x1b[31m", b"B\r\n\x07"),
        (b"\xff\xfe\x00\x80", b"TEST"),
        (b"SCU", b"X\x1b]0;owned\x07"),
    ],
)
def test_hostile_titles_come_into_no_line_as_they_are(
    tmp_path: Path, calling: bytes, called: bytes
) -> None:
    """Control characters, escape sequences and line ends are shown as question marks."""
    before, stream = structlog.get_config(), StringIO()
    logs.configure(LogSettings(format="text", level="debug"), stream)
    try:
        with receiving(tmp_path) as adapter, raw(adapter.port) as peer:
            peer.send(associate_rq(called, calling))
            peer.read()
            remembered = str(adapter.listener.rejections())
    finally:
        structlog.configure(**before)
    written = stream.getvalue()
    assert "?" in written
    assert all(" " <= character <= "~" for line in written.splitlines() for character in line)
    assert "FAKE" not in written.splitlines()[-1][:20]
    assert all(" " <= character <= "~" for character in remembered)


def test_no_patient_data_comes_into_any_line(tmp_path: Path, log: Log) -> None:
    """Stored, refused, broken and hostile instances: names, ids and UIDs stay out of the log."""
    values = {"PatientName": NAME, "patient": PATIENT, "study": STUDY, "series": SERIES}
    instance = make_instance(**values, SOPInstanceUID=INSTANCE)  # type: ignore[arg-type]
    without = make_instance(**values, SOPInstanceUID=INSTANCE + ".1")  # type: ignore[arg-type]
    del without.StudyInstanceUID
    instance.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    data = (tmp_path / "one.dcm").read_bytes()
    data = data[data.index(b"\x08\x00") :]
    clock = ManualClock()
    with running(tmp_path, clock=clock) as adapter:
        send(adapter.port, [instance, instance, without])
        with raw(adapter.port) as peer:
            peer.send(associate_rq())
            peer.read()
            for uid, content in (
                (NAME.encode(), data),
                (INSTANCE.encode(), data[:700]),
                (INSTANCE.encode(), NAME.encode() * 100),
                (b"1.2.3", data),
                (f"{PATIENT}\n{NAME}".encode(), b""),
            ):
                peer.send(store_rq(CT.encode(), uid, content))
                peer.status()
            peer.send(store_rq(NAME.encode(), b"1.2.3", data))
            peer.send(RELEASE_RQ)
            log.wait_for("association.ended", 1)
        with raw(adapter.port) as peer:
            peer.send(associate_rq(contexts=[(NAME, (EXPLICIT,)), (CT, (NAME, EXPLICIT))]))
            peer.read()
            peer.send(p_data(NAME.encode(), 0x03) + pdu(0x04, NAME.encode() * 10))
            peer.connection.shutdown(socket.SHUT_WR)
            while peer.read()[0]:
                pass
        adapter.wait_for(adapter.groups)
        clock.advance(5)
        adapter.ended_jobs(1)
        complaints = log.of("library.complains")
    assert complaints, "pynetdicom had something to say; otherwise this test proves less"
    for secret in ("TOPSECRET", PATIENT, STUDY, SERIES, INSTANCE):
        assert secret not in log.text, secret


def test_internal_errors_are_logged_without_their_message(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours names its type and place; what it quotes may be a patient's."""

    def fail(*_: object) -> None:
        raise ValueError(NAME)

    with receiving(tmp_path) as adapter:
        monkeypatch.setattr("dicom_adapter.receive.intake.identity_of", fail)
        assert send(adapter.port, [make_instance()]) == [0xA700]
        assert adapter.files() == []
    (line,) = log.of("instance.error")
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["at"]
    assert "TOPSECRET" not in log.text


def test_lines_are_json_where_configured(tmp_path: Path) -> None:
    """Each line is one object with its action, for machines that read logs."""
    before, stream = structlog.get_config(), StringIO()
    logs.configure(LogSettings(format="json", level="info"), stream)
    try:
        with receiving(tmp_path) as adapter:
            send(adapter.port, [make_instance()])
    finally:
        structlog.configure(**before)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    actions = ["association.accepted", "association.ended", "listener.closed"]
    assert [line["action"] for line in lines] == actions
    assert {*lines[0]} >= WHO | {"timestamp", "level", "event"}
