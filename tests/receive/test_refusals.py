"""Each refusal has its status, leaves nothing behind, and does not end the association."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import UID, generate_uid
from sqlalchemy import text

from dicom_adapter.errors import UnavailableError
from dicom_adapter.files import FlushToDisk
from dicom_adapter.ledger import instances
from dicom_adapter.receive.spool import Spool
from tests.receive.support import CT, EXPLICIT, MR, Log, Receiving, config, data_set_of, receiving
from tests.receive.wire import P_DATA, associate_rq, p_data, raw, store_rq
from tests.support import SUCCESS, association, make_instance, send

OUT_OF_RESOURCES, MISMATCHED, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
INVALID_SOP_INSTANCE, SOP_CLASS_NOT_SUPPORTED = 0x0117, 0x0122


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener with one AE title."""
    with receiving(tmp_path) as running:
        yield running


@pytest.fixture
def good(tmp_path: Path) -> tuple[bytes, bytes]:
    """A SOP Instance UID, and a data set with it in explicit VR little endian."""
    instance = make_instance()
    instance.save_as(tmp_path / "good.dcm", enforce_file_format=True)
    return str(instance.SOPInstanceUID).encode(), data_set_of(tmp_path / "good.dcm")


@pytest.mark.parametrize("value", [None, "", "not-a-uid", "1.2\\1.3", "1" * 65])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_without_study_and_series_no_group_could_take_it(
    adapter: Receiving, keyword: str, value: str | None
) -> None:
    """Absent, empty or unusable Study or Series Instance UID: 0xC000, and the next is stored."""
    bad = make_instance()
    if value is None:
        delattr(bad, keyword)
    else:
        bad[keyword]._value = value  # noqa: SLF001 - pydicom would split or refuse it
    assert send(adapter.port, [bad, make_instance()]) == [CANNOT_UNDERSTAND, SUCCESS]
    assert len(adapter.stored()) == len(adapter.files()) == 1


def test_command_and_data_set_must_agree(
    adapter: Receiving, good: tuple[bytes, bytes], log: Log
) -> None:
    """Another SOP Instance UID or SOP Class UID in the command than in the data set: 0xA900."""
    uid, data = good
    mr = data.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4\0")
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        for instance, content in ((b"1.2.3", data), (uid, mr), (uid, data)):
            peer.send(store_rq(CT.encode(), instance, content))
        assert [peer.status() for _ in range(3)] == [MISMATCHED, MISMATCHED, SUCCESS]
    assert [line["why"] for line in log.wait_for("instance.refused", 2)] == [
        "SOP Instance UID of command and data set differ",
        "SOP Class UID of command and data set differ",
    ]
    assert len(adapter.stored()) == len(adapter.files()) == 1


def test_refusals_are_remembered_by_their_kind(
    adapter: Receiving, good: tuple[bytes, bytes]
) -> None:
    """However many places data sets break off at, those who ask are told of it once."""
    uid, data = good
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        for length in (700, 701, 702):
            peer.send(store_rq(CT.encode(), uid, data[:length]))
            assert peer.status() == CANNOT_UNDERSTAND
    (seen,) = adapter.listener.rejections()
    assert (seen.why, seen.count) == (
        "instance refused with 0xC000: the data set breaks off",
        3,
    )


def test_a_class_other_than_the_contexts_is_refused(
    tmp_path: Path, good: tuple[bytes, bytes]
) -> None:
    """What was not negotiated cannot come in through another context, ignored classes neither."""
    uid, data = good
    text_ = config("", "TEST: accepted_sop_classes: [CTImageStorage], ignored_sop_classes: ['1.9']")
    mr = data.replace(CT.encode() + b"\0", MR.encode() + b"\0")
    with receiving(tmp_path, text_) as adapter, raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        peer.send(store_rq(MR.encode(), uid, mr))
        assert peer.status() == SOP_CLASS_NOT_SUPPORTED
        peer.send(store_rq(b"1.9", uid, data))
        assert peer.status() == SOP_CLASS_NOT_SUPPORTED
        assert adapter.files() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 64,
        bytes(range(256)) * 16,
        b"\x08\x00\x16\x00UI\xff\xff1.2.3",
        b"\xff" * 4096,
        b"<html><body>no DICOM at all</body></html>",
    ],
)
def test_what_is_no_data_set_is_refused(
    adapter: Receiving, good: tuple[bytes, bytes], data: bytes
) -> None:
    """An empty data set and bytes without meaning: 0xC000, and the next one is stored."""
    uid, whole = good
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        peer.send(store_rq(CT.encode(), uid, data) + store_rq(CT.encode(), uid, whole, 2))
        assert (peer.status(), peer.status()) == (CANNOT_UNDERSTAND, SUCCESS)
    assert len(adapter.stored()) == len(adapter.files()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused(adapter: Receiving, good: tuple[bytes, bytes], seed: int) -> None:
    """Random bytes behind a good beginning are refused or stored whole, never half."""
    uid, whole = good
    noise = bytes((seed * 7919 + n * n * 31) % 251 for n in range(2048))
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        peer.send(store_rq(CT.encode(), uid, noise))
        assert peer.status() == CANNOT_UNDERSTAND
        peer.send(store_rq(CT.encode(), uid, whole, 2))
        assert peer.status() == SUCCESS


@pytest.mark.parametrize(
    "uid",
    [b"../../x", b"/etc/passwd", b"1.2.3\n4", b"DOE^JOHN", b"1." * 32 + b"1", b"1.2\\1.3", b""],
)
def test_a_bad_instance_uid_in_the_command_is_refused(
    tmp_path: Path, adapter: Receiving, good: tuple[bytes, bytes], uid: bytes
) -> None:
    """What is no UID gets 0x0117 and touches nothing outside of the spool; the next is stored."""
    before = {path for path in tmp_path.rglob("*") if "data" not in path.parts}
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        peer.send(store_rq(CT.encode(), uid, good[1]))
        assert peer.status() == INVALID_SOP_INSTANCE
        assert adapter.files() == []
        peer.send(store_rq(CT.encode(), *good, 2))
        assert peer.status() == SUCCESS
    assert {path for path in tmp_path.rglob("*") if "data" not in path.parts} == before


def test_below_the_reserve_nothing_is_taken(tmp_path: Path) -> None:
    """With less than storage.reserve free: 0xA700 and a comment that says so; echoes go on."""
    with receiving(tmp_path, config().replace("reserve: 0", "reserve: 900TiB")) as adapter:
        contexts = [(CT, EXPLICIT), ("1.2.840.10008.1.1", EXPLICIT)]
        with association(adapter.port, contexts=contexts) as opened:
            answer = opened.send_c_store(make_instance())
            assert opened.send_c_echo().Status == SUCCESS
        assert (answer.Status, adapter.files()) == (OUT_OF_RESOURCES, [])
        assert answer.ErrorComment == "less disk space is free than storage.reserve"


@pytest.mark.parametrize("error", [UnavailableError("locked"), RuntimeError("DOE^JOHN")])
def test_what_the_ledger_does_not_take_leaves_no_file(
    adapter: Receiving, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A ledger that fails: 0xA700, no file; when it works again, the next instance is stored."""

    def fail(*_: object) -> bool:
        raise error

    with association(adapter.port) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(instances, "record", fail)
            answer = opened.send_c_store(make_instance())
            assert (answer.Status, adapter.files()) == (OUT_OF_RESOURCES, [])
            assert "DOE" not in answer.ErrorComment
        assert opened.send_c_store(make_instance()).Status == SUCCESS
    assert len(adapter.files()) == 1


def test_a_ledger_that_is_really_broken_is_answered_too(adapter: Receiving) -> None:
    """A table that is gone is a failure like any other: 0xA700, no file."""
    with adapter.ledger.write() as tx:
        tx.execute(text("ALTER TABLE instances RENAME TO gone"))
    assert send(adapter.port, [make_instance()]) == [OUT_OF_RESOURCES]
    assert adapter.files() == []
    with adapter.ledger.write() as tx:
        tx.execute(text("ALTER TABLE gone RENAME TO instances"))
    assert send(adapter.port, [make_instance()]) == [SUCCESS]


@pytest.mark.parametrize("call", ["writev", "fdatasync", "link"])
def test_a_disk_that_fails_leaves_no_file(
    adapter: Receiving, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A full or broken disk: 0xA700, no file; when it works again, the next one is stored."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/secret/DOE^JOHN")

    with association(adapter.port) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            answer = opened.send_c_store(make_instance())
        assert (answer.Status, adapter.files()) == (OUT_OF_RESOURCES, [])
        assert answer.ErrorComment == "cannot store: No space left on device"
        assert opened.send_c_store(make_instance()).Status == SUCCESS


def test_a_folder_that_cannot_be_flushed_leaves_no_file(
    adapter: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that may not survive a power cut is taken back before the sender is refused."""

    def fail(folder: Path) -> None:
        raise OSError(5, "Input/output error", str(folder))

    send(adapter.port, [make_instance()])
    with monkeypatch.context() as patch:
        patch.setattr("dicom_adapter.files.sync_folder", fail)
        assert send(adapter.port, [make_instance()]) == [OUT_OF_RESOURCES]
    assert len(adapter.files()) == len(adapter.stored()) == 1


@pytest.mark.parametrize("end", ["close", "abort"])
def test_half_an_instance_leaves_nothing(
    adapter: Receiving, good: tuple[bytes, bytes], log: Log, end: str
) -> None:
    """A peer that goes away in the middle of an instance leaves no file and no row."""
    whole = store_rq(CT.encode(), *good)
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        if end == "close":
            peer.send(whole[: len(whole) // 2])
        else:
            # A whole fragment, but not the last one of the data set; then an A-ABORT.
            peer.send(store_rq(CT.encode(), good[0], b"")[: -len(p_data(b"", 2))])
            peer.send(p_data(good[1][:1000], 0x00) + b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    (line,) = log.wait_for("association.lost" if end == "close" else "association.aborted")
    assert line.get("by", "the peer") == "the peer"
    assert (adapter.files(), adapter.stored()) == ([], [])
    assert send(adapter.port, [make_instance()]) == [SUCCESS]


@pytest.mark.dcmtk
def test_a_sender_that_is_killed_leaves_nothing_half(
    tmp_path: Path, adapter: Receiving, log: Log
) -> None:
    """Whatever of a killed storescu was stored is whole, and everything else is gone."""
    big = make_instance()
    big.add_new(0x0009_0010, "LO", "NOISE")
    big.add_new(0x0009_1001, "OB", os.urandom(30_000_000))
    big.save_as(tmp_path / "big.dcm", enforce_file_format=True)
    words = ["storescu", "-aec", "TEST", "--repeat", "50", "127.0.0.1", str(adapter.port)]
    with subprocess.Popen([*words, str(tmp_path / "big.dcm")]) as sender:
        log.wait_for("association.accepted")
        sender.kill()
    log.wait_for("association.lost")
    assert len(adapter.files()) == len(adapter.stored())
    assert not [path for path in adapter.files() if path.suffix == ".part"]


def test_what_a_crash_left_half_received_is_swept_at_the_start(tmp_path: Path) -> None:
    """Half received files of an earlier run are removed, stored ones are not."""
    with receiving(tmp_path) as adapter:
        send(adapter.port, [make_instance()])
        (kept,) = adapter.files()
    half = tmp_path / "data" / "spool" / "incoming" / "0123.part"
    half.write_bytes(b"half")
    Spool(tmp_path / "data" / "spool", FlushToDisk()).open()
    assert (half.exists(), kept.exists()) == (False, True)


def test_a_move_originator_is_recorded(adapter: Receiving) -> None:
    """Who asked for a C-MOVE, and in which message, is kept with the instance."""
    with association(adapter.port) as opened:
        answer = opened.send_c_store(make_instance(), originator_aet="MOVER", originator_id=7)
    assert answer.Status == SUCCESS
    query = text("SELECT move_originator_ae_title, move_originator_message_id FROM instances")
    with adapter.ledger.read() as tx:
        assert tx.execute(query).one() == ("MOVER", 7)


def test_harmless_oddities_of_modalities_are_stored(adapter: Receiving) -> None:
    """Leading zeros in a UID and no patient at all are no reason to refuse an instance."""
    odd = make_instance(patient="", StudyInstanceUID=UID("1.02.3"))
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = UID(generate_uid()[:20] + ".01")
    odd.PatientName = ""
    assert send(adapter.port, [odd]) == [SUCCESS]
    assert adapter.stored()[0].study_instance_uid == "1.02.3"


def test_a_response_comes_on_the_wire_with_its_comment(
    adapter: Receiving, good: tuple[bytes, bytes]
) -> None:
    """The sender reads in Error Comment (0000,0902) why, without a value of its data set."""
    with raw(adapter.port) as peer:
        peer.send(associate_rq())
        peer.read()
        peer.send(store_rq(CT.encode(), b"1.2.3", good[1]))
        kind, content = peer.read()
    assert kind == P_DATA
    assert b"SOP Instance UID of command and data set differ" in content
    assert good[0] not in content
