"""Whatever became of the files or the ledger, the two agree again, and no instance is deleted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter.model import DisorderKind
from tests.support import SUCCESS, make_instance, send
from tests.upkeep.left import Left, checked, kinds


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """What a service has left behind."""
    return Left(tmp_path)


def test_what_agrees_is_let_be(left: Left) -> None:
    """A start over data in order changes nothing, and finds nothing, read through or not."""
    with left.running() as adapter:
        assert checked(adapter, scrub=True) == []
        assert adapter.service.status().attention == ()
    assert (left.files, left.rows(), left.aside) == ([left.id], [left.row], [])


def test_without_its_ledger_a_file_is_recorded_as_it_was_received(left: Left) -> None:
    """All that a row says is read from the file, but its association; and a job comes of it."""
    left.forget()
    with left.running() as adapter:
        adapter.grouped(1)
        left.clock.advance(5)
        (job,) = adapter.ended_jobs(1)
        assert (job.instances, job.state) == (1, "finished")
    (row,) = left.rows()
    lost = {"association": 0, "source_address": ""}
    for name in ("seq", "state", "group_id", "ready_at", "reclaimable_at"):
        del row[name], left.row[name]
    # An id has the milliseconds of its making.
    assert row.pop("received_at") // 1000 == left.row.pop("received_at") // 1000
    assert row == left.row | lost


def test_a_file_that_was_not_answered_for_is_recorded(left: Left) -> None:
    """A crash between a file's name and its row: the instance is there, as if just received."""
    instance = make_instance(number=2)
    with left.running() as adapter:
        assert send(adapter.port, [instance]) == [SUCCESS]
        adapter.grouped(2)
    left.change("delete from instances where seq = (select max(seq) from instances)")
    with left.running() as adapter:
        adapter.grouped(2)
    assert [row["sop_instance_uid"] for row in left.rows()] == [
        left.sent.SOPInstanceUID,
        instance.SOPInstanceUID,
    ]


def test_a_second_file_with_the_same_bytes_is_removed(left: Left) -> None:
    """What is kept under another id already needs no row of its own."""
    left.copy(f"{left.id[:8]}{'f' * 24}.dcm", left.file.read_bytes())
    with left.running() as adapter:
        assert checked(adapter) == []
        adapter.grouped(1)
    assert (left.files, len(left.rows())) == ([left.id], 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(lambda file: file[:-1], "breaks off at byte", id="cut off"),
        pytest.param(lambda file: file[:200], "", id="cut off in its header"),
        pytest.param(lambda _: b"", "no Part 10 file", id="empty"),
        pytest.param(lambda _: b"\0" * 5000, "no Part 10 file", id="zeros"),
        pytest.param(lambda file: file[:132] + b"\xff" * 3000, "", id="rubbish"),
        pytest.param(
            lambda file: file.replace(b"TEST", b"    "), "which AE title", id="without AE title"
        ),
    ],
)
def test_what_is_no_whole_instance_is_moved_aside(
    left: Left, content: Callable[[bytes], bytes], why: str
) -> None:
    """A file without a row that cannot be read back is kept, out of the way, and told."""
    with left.running() as adapter:
        bad = left.copy(f"{left.id[:8]}{'e' * 24}.dcm", content(left.file.read_bytes()))
        (found,) = checked(adapter)
        assert kinds([found]) == [(DisorderKind.UNKNOWN, bad.stem)]
        assert why in found.cure
        assert found.cure.endswith(": moved to spool/aside")
        (line,) = adapter.service.status().attention
        assert line == "1 file of the spool does not agree with the ledger: see `fsck`"
        # It is out of the way: the next look finds nothing.
        assert checked(adapter) == []
        assert adapter.service.status().attention == ()
    assert (left.aside, left.files) == ([bad.name], [left.id])


def test_a_file_that_is_not_ours_is_left_where_it_is(left: Left) -> None:
    """Somebody put it there, and has to take it away."""
    left.copy("notes.txt", b"from the administrator")
    with left.running() as adapter:
        (found,) = checked(adapter)
        assert (found.kind, found.instance_id) == (DisorderKind.UNKNOWN, "notes.txt")
        assert f"spool/instances/{left.file.parent.name}" in found.cure
    assert "notes" in left.files


def test_a_lost_file_is_told_until_it_is_sent_again(left: Left) -> None:
    """An instance without its file needs a person; sent again, it is whole as before."""
    left.file.unlink()
    with left.running() as adapter:
        assert len(adapter.service.status().attention) == 1
        (found,) = checked(adapter)
        assert kinds([found]) == [(DisorderKind.MISSING, left.id)]
        assert found.cure == "its file is gone: have it sent again, or discard its group"
        assert send(adapter.port, [left.sent]) == [SUCCESS]
        assert checked(adapter, scrub=True) == []
        assert adapter.service.status().attention == ()
        left.clock.advance(5)
        (job,) = adapter.ended_jobs(1)
        assert (job.instances, job.state) == (1, "finished")
    assert (left.files, len(left.rows())) == ([left.id], 1)


def test_a_file_of_another_size_is_moved_aside_until_it_is_sent_again(left: Left) -> None:
    """What a pipeline must not see is out of its way at once."""
    with left.file.open("ab") as file:
        file.write(b"more")
    with left.running() as adapter:
        assert left.aside == [left.file.name]
        assert send(adapter.port, [left.sent]) == [SUCCESS]
        assert checked(adapter, scrub=True) == []
    assert (left.files, len(left.rows())) == ([left.id], 1)


def test_a_scrub_finds_other_bytes_of_the_same_size(left: Left) -> None:
    """A bit that the disk has turned is found by reading, and by nothing else."""
    content = bytearray(left.file.read_bytes())
    content[-1] ^= 1
    left.file.chmod(0o600)
    left.file.write_bytes(content)
    with left.running() as adapter:
        assert checked(adapter) == []
        (found,) = checked(adapter, scrub=True)
        assert kinds([found]) == [(DisorderKind.BROKEN, left.id)]
        assert left.aside == [left.file.name]
        assert kinds(checked(adapter)) == [(DisorderKind.MISSING, left.id)]


def test_what_was_reclaimed_is_removed_again(left: Left) -> None:
    """A power cut may bring back a file whose removal was not on the disk yet."""
    left.change("update instances set state = 'reclaimed'")
    with left.running() as adapter:
        assert checked(adapter) == []
    assert left.files == []


def test_what_is_just_being_received_is_let_be(left: Left) -> None:
    """Between its name and its row, a file has neither: it is looked at again after a minute."""
    file = left.copy(f"{left.id[:8]}{'d' * 24}.dcm", left.file.read_bytes())
    file.unlink()
    with left.running() as adapter:
        file.write_bytes(left.file.read_bytes())
        assert checked(adapter, is_receiving=True) == []
        assert file.exists()
        assert kinds(checked(adapter)) == [(DisorderKind.REDUNDANT, file.stem)]


def test_a_folder_that_is_gone_is_told_of_every_instance(left: Left) -> None:
    """Whole folders that are lost are found by the rows."""
    with left.running() as adapter:
        assert send(adapter.port, [make_instance(number=2)]) == [SUCCESS]
        adapter.grouped(2)
    for name in left.files:
        (left.file.parent / f"{name}.dcm").unlink()
    os.rmdir(left.file.parent)  # noqa: PTH106 - it must be empty
    with left.running() as adapter:
        found = checked(adapter)
        assert {disorder.kind for disorder in found} == {DisorderKind.MISSING}
        assert len(found) == 2
        (line,) = adapter.service.status().attention
        assert line == "2 files of the spool do not agree with the ledger: see `fsck`"
