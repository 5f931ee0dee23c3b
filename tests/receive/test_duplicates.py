"""The same instance again: nothing is stored twice for nothing, and nothing is replaced."""

from pathlib import Path

from pydicom import dcmread

from tests.receive.support import CT, config, receiving
from tests.support import SUCCESS, ManualClock, association, make_instance, running, send


def test_the_same_bytes_again_are_stored_once(tmp_path: Path) -> None:
    """Success, one file and one row, however often and over whichever association it comes."""
    instance = make_instance()
    with receiving(tmp_path) as adapter:
        assert send(adapter.port, [instance, instance]) == [SUCCESS] * 2
        assert send(adapter.port, [instance]) == [SUCCESS]
        assert len(adapter.stored()) == len(adapter.files()) == 1


def test_the_same_bytes_again_change_nothing_in_the_open_group(tmp_path: Path) -> None:
    """A group that holds the instance keeps its count and its deadline."""
    instance = make_instance()
    clock = ManualClock()
    with running(tmp_path, clock=clock) as adapter:
        send(adapter.port, [instance])
        (before,) = adapter.grouped(1)
        clock.advance(3)
        assert send(adapter.port, [instance]) == [SUCCESS]
        assert adapter.groups() == [before]
        clock.advance(2)
        (job,) = adapter.ended_jobs(1)
    assert job.instances == 1


def test_other_bytes_under_the_same_uid_are_both_kept(tmp_path: Path) -> None:
    """No file is ever replaced: every variant stays, in the order of its arrival."""
    first, second = make_instance(number=1), make_instance(number=2)
    second.SOPInstanceUID = first.SOPInstanceUID
    second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    with receiving(tmp_path) as adapter:
        assert send(adapter.port, [first, second, first]) == [SUCCESS] * 3
        stored = adapter.stored()
        numbers = [dcmread(instance.path).InstanceNumber for instance in stored]
    assert numbers == [1, 2]
    assert len({instance.path for instance in stored}) == 2
    assert {instance.sop_instance_uid for instance in stored} == {first.SOPInstanceUID}


def test_another_transfer_syntax_is_other_bytes(tmp_path: Path) -> None:
    """What was sent explicit and then implicit is kept both ways."""
    instance = make_instance()
    contexts = [(CT, "1.2.840.10008.1.2.1")], [(CT, "1.2.840.10008.1.2")]
    with receiving(tmp_path) as adapter:
        for proposed in contexts:
            with association(adapter.port, contexts=proposed) as opened:
                assert opened.send_c_store(instance).Status == SUCCESS
        syntaxes = [stored.transfer_syntax_uid for stored in adapter.stored()]
    assert syntaxes == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


def test_two_titles_keep_their_own_copies(tmp_path: Path) -> None:
    """The same instance to two AE titles is two entries, each with its own file."""
    instance = make_instance()
    with receiving(tmp_path, config("", "ONE", "TWO")) as adapter:
        assert send(adapter.port, [instance], "ONE") == [SUCCESS]
        assert send(adapter.port, [instance], "TWO") == [SUCCESS]
        (one,), (two,) = adapter.stored("ONE"), adapter.stored("TWO")
        assert len(adapter.files()) == 2
    assert one.path != two.path
    assert one.sop_instance_uid == two.sop_instance_uid == instance.SOPInstanceUID
