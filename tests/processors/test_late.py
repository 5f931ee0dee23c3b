"""What comes after its group was handed over, and what comes once more."""

from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_adapter.model import Job
from tests.processors.tools import (
    CommandLine,
    config,
    history,
    kept,
    submitted,
    title,
    wait_submitted,
)
from tests.support import (
    SUCCESS,
    ManualClock,
    Running,
    files_in,
    make_instance,
    running,
    send,
)


def written(ae_title: str, retain: str = "1h") -> str:
    """Return a configuration that keeps what was delivered for some time."""
    return config(ae_title).replace("{reserve: 0", f"{{retain: {retain}, reserve: 0")


def hand_over(adapter: Running, clock: ManualClock, sent: list[Dataset], jobs: int) -> list[Job]:
    """Send instances, let their group be due, and return the jobs once so many have ended."""
    assert send(adapter.port, sent) == [SUCCESS] * len(sent)
    adapter.grouped(len(sent))
    clock.advance(5)
    return adapter.ended_jobs(jobs)


def uids(instances: list[Dataset]) -> list[str]:
    """Return the SOP Instance UIDs, sorted."""
    return sorted(str(instance.SOPInstanceUID) for instance in instances)


def test_a_late_instance_makes_a_job_of_the_whole_study(tmp_path: Path, cli: CommandLine) -> None:
    """It supersedes the job before it, which the platform and people can see."""
    clock = ManualClock()
    first, second = [make_instance(), make_instance()], [make_instance()]
    with running(tmp_path, written(title("TEST")), clock) as adapter:
        hand_over(adapter, clock, first, 1)
        one, two = hand_over(adapter, clock, second, 2)
        three = hand_over(adapter, clock, [make_instance()], 3)[-1]
        (shown,) = cli(adapter, "jobs", "show", two.id, "--json").rows
        table = cli(adapter, "jobs", "show", two.id).out
        found = submitted(adapter)
    assert [submission.uids for submission in found[:2]] == [uids(first), uids(first + second)]
    assert [len(submission.instances) for submission in found] == [2, 3, 4]
    assert [job.supersedes for job in (one, two, three)] == [None, one.name, two.name]
    assert shown["supersedes"] == one.name
    assert one.name in table


def test_a_late_instance_can_be_processed_alone(tmp_path: Path) -> None:
    """With `late: separate` its job has it alone, and supersedes none."""
    clock = ManualClock()
    late = [make_instance()]
    with running(tmp_path, written(title("TEST", late="separate")), clock) as adapter:
        hand_over(adapter, clock, [make_instance(), make_instance()], 1)
        job = hand_over(adapter, clock, late, 2)[-1]
        assert submitted(adapter)[-1].uids == uids(late)
    assert job.supersedes is None


def test_what_is_reclaimed_is_no_part_of_the_whole_study(tmp_path: Path) -> None:
    """Nothing is kept by default, and the late instance is processed all the same."""
    clock = ManualClock()
    late = [make_instance()]
    with running(tmp_path, written(title("TEST"), retain="0s"), clock) as adapter:
        (first,) = hand_over(adapter, clock, [make_instance()], 1)
        adapter.wait_for(lambda: not kept(adapter))
        job = hand_over(adapter, clock, late, 2)[-1]
        assert submitted(adapter)[-1].uids == uids(late)
    assert job.supersedes == first.name


def test_a_transfer_that_broke_off_is_processed_as_a_whole_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    """All of it joins the late group; of what had come before there is no second file or row."""
    clock = ManualClock()
    study = [make_instance(number=number) for number in range(1, 5)]
    with running(tmp_path, written(title("TEST")), clock) as adapter:
        hand_over(adapter, clock, study[:2], 1)
        jobs = hand_over(adapter, clock, study, 2)
        spool = tmp_path / "data" / "spool" / "instances"
        adapter.wait_for(lambda: len(files_in(spool)) == 4)
        found = submitted(adapter)[-1]
        first = found.instances[0]
        assert [event.action for event in history(adapter, first.id)] == ["resend"]
    assert found.uids == uids(study)
    assert [job.instances for job in jobs] == [2, 4]
    assert jobs[1].supersedes == jobs[0].name


def test_a_resend_can_be_ignored(tmp_path: Path) -> None:
    """With `resend: ignore` it is answered Success, and nothing comes of it."""
    clock = ManualClock()
    study = [make_instance(), make_instance()]
    text = written(title("TEST").replace("{settings", "{resend: ignore, settings"))
    with running(tmp_path, text, clock) as adapter:
        hand_over(adapter, clock, study, 1)
        assert send(adapter.port, study) == [SUCCESS] * 2
        hand_over(adapter, clock, [make_instance(study="1.9")], 2)
        assert [len(submission.instances) for submission in submitted(adapter)] == [2, 1]


def test_a_resend_waits_for_its_submission_before_it_is_reclaimed(tmp_path: Path) -> None:
    """What was delivered, and came again, is kept until it is delivered again."""
    clock = ManualClock()
    study = [make_instance()]
    with running(tmp_path, written(title("TEST")), clock) as adapter:
        hand_over(adapter, clock, study, 1)
        assert kept(adapter) == {"delivered, until `retain` has passed": 1}
        assert send(adapter.port, study) == [SUCCESS]
        adapter.grouped(1)
        assert kept(adapter) == {"in an open group": 1}
        clock.advance(3600)
        adapter.ended_jobs(2)
        clock.advance(3600)
        adapter.wait_for(lambda: not kept(adapter))
    assert not files_in(tmp_path / "data" / "spool")


@pytest.mark.parametrize(
    ("policy", "numbers"), [("keep-first", [1]), ("keep-last", [2]), ("keep-both", [1, 2])]
)
def test_duplicates_decides_which_of_other_bytes_a_job_gets(
    tmp_path: Path, policy: str, numbers: list[int]
) -> None:
    """All of them are kept, and reclaimed together."""
    clock = ManualClock()
    first, second = make_instance(number=1), make_instance(number=2)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    text = written(title("TEST").replace("{settings", f"{{duplicates: {policy}, settings"))
    with running(tmp_path, text, clock) as adapter:
        (job,) = hand_over(adapter, clock, [first, second], 1)
        assert kept(adapter) == {"delivered, until `retain` has passed": 2}
        (found,) = submitted(adapter)
        # The first one once more is the last that was sent.
        if policy == "keep-last":
            hand_over(adapter, clock, [first], 2)
            assert [one.instance_number for one in submitted(adapter)[-1].instances] == [1]
    assert [instance.instance_number for instance in found.instances] == numbers
    assert job.instances == len(numbers)


def test_each_late_group_follows_the_one_before_it(tmp_path: Path) -> None:
    """Its submission supersedes that of the newest group, not of the first."""
    clock = ManualClock()
    with running(tmp_path, written(title("TEST")), clock) as adapter:
        hand_over(adapter, clock, [make_instance()], 1)
        hand_over(adapter, clock, [make_instance()], 2)
        hand_over(adapter, clock, [make_instance()], 3)
        found = wait_submitted(adapter, 3)
    ids = [submission.submission.id for submission in found]
    assert [submission.submission.supersedes for submission in found] == [None, *ids[:2]]
