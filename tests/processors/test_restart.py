"""Groups, deadlines and instances are in the ledger: no end of the process loses any of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_adapter import JobProcessorBase, StoredInstance
from dicom_adapter.model import SubmissionState
from tests.processors.scripted import CONFIG, Script, by_study
from tests.processors.tools import (
    config,
    serving,
    submitted,
    title,
    wait_submitted,
)
from tests.support import PATIENCE, SUCCESS, ManualClock, make_instance, running, send

MINUTE = config(title("TEST", timeout=60, max_wait=100))
DYING = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
pipelines:
  none: {command: ["true"], resources: {memory: 1}}
ae_titles:
  TEST: {processor: "tests.processors.scripted:Dying", settings: {note: NOTE, after: AFTER}}
"""


def now() -> datetime:
    """Return the time, as a process of its own sees it."""
    return datetime.now(UTC)


def test_r16_an_open_group_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A group that was open at the stop takes instances again, and keeps deadline and cap."""
    clock = ManualClock()
    with running(tmp_path, MINUTE, clock) as adapter:
        send(adapter.port, [make_instance(), make_instance()])
        (before,) = adapter.grouped(2)
        clock.advance(50)
    with running(tmp_path, MINUTE, clock) as adapter:
        assert adapter.groups() == [before]
        send(adapter.port, [make_instance()])
        (after,) = adapter.grouped(3)
        clock.advance(49.9)
        assert submitted(adapter) == []
        clock.advance(0.1)
        (job,) = wait_submitted(adapter, 1)
    assert after.id == before.id
    assert after.ready_at == before.opened_at + timedelta(seconds=100)
    assert len(job.instances) == 3


def test_a_deadline_that_passed_meanwhile_is_kept(tmp_path: Path) -> None:
    """A group that came due while nothing ran is handed over at the start, with all instances."""
    clock = ManualClock()
    with running(tmp_path, MINUTE, clock) as adapter:
        send(adapter.port, [make_instance() for _ in range(3)])
        adapter.grouped(3)
        assert submitted(adapter) == []
    clock.advance(3600)
    with running(tmp_path, MINUTE, clock) as adapter:
        (job,) = adapter.ended_jobs(1)
        assert len(submitted(adapter)) == 1
    assert (job.state, job.instances) == ("finished", 3)


def test_what_was_stored_and_not_handled_is_handled_after_a_restart(
    tmp_path: Path, script: Script
) -> None:
    """Instances whose processor had failed on them before the stop come to it again after it."""

    def fail(_processor: JobProcessorBase, _instance: StoredInstance) -> None:
        raise RuntimeError

    script.on_instance = fail
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        assert send(adapter.port, [make_instance(), make_instance()]) == [SUCCESS] * 2
        adapter.wait_for(lambda: script.calls.count("instance") == 2)
        assert adapter.groups() == []
    script.on_instance = by_study
    clock.advance(1)
    with running(tmp_path, CONFIG, clock) as adapter:
        adapter.grouped(2)
        clock.advance(4)
        (job,) = wait_submitted(adapter, 1)
    assert len(job.instances) == 2
    assert script.calls == [
        *["start", "instance", "instance", "stop"],
        *["start", "instance", "instance", "group", "stop"],
    ]


def test_a_kill_after_the_answers_loses_nothing(tmp_path: Path) -> None:
    """Every instance that was answered before a kill -9 is in the job after the next start."""
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(MINUTE, "utf-8")
    sent = [make_instance(number=n) for n in range(20)]
    with serving(file) as (process, port):
        assert send(port, sent) == [SUCCESS] * 20
        process.kill()
        process.wait()
    clock = ManualClock(now() + timedelta(hours=1))
    with running(tmp_path, MINUTE, clock) as adapter:
        (job,) = wait_submitted(adapter, 1)
        adapter.ended_jobs(1)
    assert job.uids == sorted(str(instance.SOPInstanceUID) for instance in sent)


def test_a_processor_that_takes_the_process_down_loses_nothing(tmp_path: Path) -> None:
    """A call during which the process died is made again: one group, one submission, no more."""
    text = DYING.replace("NOTE", str(tmp_path / "note")).replace("AFTER", "0")
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(text, "utf-8")
    with serving(file) as (process, port):
        assert send(port, [make_instance()]) == [SUCCESS]
        assert process.wait(PATIENCE) == -9
    assert (tmp_path / "note").exists()
    with running(tmp_path, text, ManualClock(now() + timedelta(minutes=1))) as adapter:
        (job,) = adapter.ended_jobs(1)
        (found,) = submitted(adapter)
        assert adapter.groups() == []
    assert found.submission.state == SubmissionState.ACCEPTED
    assert (job.state, job.instances) == ("finished", 1)
