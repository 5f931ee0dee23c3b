import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from dicom_adapter.config import Keep, StorageSettings
from dicom_adapter.ledger import Ledger, stock, submissions
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import LOCAL, InputFile, Job, JobInput
from dicom_adapter.receive.spool import Spool
from dicom_adapter.reclaim import Places, Reclaimer
from tests.ledger import make
from tests.platform.harness import Platform, part10, platform, sh
from tests.support import CONFIG, PATIENCE, ManualClock, make_instance, running, send

DAY = 86_400.0


@contextmanager
def reclaiming(made: Platform, keep: Keep | None = None, **storage: Any) -> Iterator[Reclaimer]:  # noqa: ANN401 - settings
    """Run a reclaimer over a platform's folder and ledger until the block ends."""
    settings = StorageSettings(
        **{"path": made.folder, "watermark": "100%", "reserve": 0, **storage}
    )
    reclaimer = Reclaimer(
        settings,
        keep or Keep(),
        Places(made.spool, made.workspaces, made.uploads),
        made.ledger,
        made.clock,
    )
    reclaimer.start()
    try:
        yield reclaimer
    finally:
        reclaimer.stop(PATIENCE)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose pipeline leaves an output, or fails by another."""
    good = sh('echo out > "$DICOM_ADAPTER_OUTPUT/out"; echo log')
    with platform(tmp_path, good, sh("echo log; exit 1", "fail")) as found:
        yield found


def gone(made: Platform, *files: InputFile) -> None:
    """Wait until the ledger has these instances as reclaimed; then their files must be gone."""

    def look() -> bool:
        with made.ledger.read() as tx:
            return all(make.state_of(tx, file.instance_id) == "reclaimed" for file in files)

    made.ledger.wait_for(look, PATIENCE)
    assert not any(map(there(made), files))


def there(made: Platform) -> Any:  # noqa: ANN401 - a function
    """Return what tells whether the file of an instance is on the disk."""
    return lambda file: made.spool.path_of(file.instance_id).exists()


def reclaimed(made: Platform, job: Job, *parts: str) -> Job:
    """Wait until exactly these parts of a job are reclaimed."""
    made.ledger.wait_for(
        lambda: set(made.views.get(LOCAL, job.id).reclaimed) == set(parts), PATIENCE
    )
    return made.views.get(LOCAL, job.id)


def worked(made: Platform, reclaimer: Reclaimer) -> None:
    """Have the reclaimer work once more from begin to end."""
    # What a crash left goes first in each round: when the second is gone, a round has ended.
    for _ in range(2):
        bait = made.store()
        with made.ledger.write() as tx:
            tx.execute(
                text("UPDATE instances SET state = 'reclaiming' WHERE id = :id"),
                {"id": bait.instance_id},
            )
        reclaimer.wake()
        gone(made, bait)


def test_an_instance_goes_when_it_is_released_delivered_and_retained(made: Platform) -> None:
    """It stays until its processor let it go, every submission is settled, and retain passed."""
    file, other = made.store(), made.store()
    with made.ledger.write() as tx:
        first, second = (make.submit(tx, [file.instance_id]) for _ in range(2))
    with reclaiming(made, retain=60.0) as reclaimer:
        worked(made, reclaimer)
        made.release(file)
        worked(made, reclaimer)
        _settle(made.ledger, first.id, accept=True)
        worked(made, reclaimer)
        assert there(made)(file)
        _settle(made.ledger, second.id, accept=False)
        made.clock.advance(59.9)
        worked(made, reclaimer)
        assert there(made)(file)
        made.clock.advance(0.1)
        gone(made, file)
    assert there(made)(other)
    assert make.reasons(made.ledger) == {"kept by its job processor": 1}


def _settle(ledger: Ledger, submission: str, *, accept: bool) -> None:
    at = ManualClock().now()
    with ledger.write() as tx:
        if accept:
            submissions.accept(tx, submission, "job", at)
        else:
            submissions.discard(tx, submission, at, "ann")


def test_empty_folders_go_with_their_last_instance(made: Platform) -> None:
    """Where nothing is left, no folder is left either; beside others it stays."""
    files = [made.store() for _ in range(3)]
    made.release(*files)
    with reclaiming(made):
        gone(made, *files)
    assert list((made.folder / "spool" / "instances").iterdir()) == []


def test_what_a_crash_left_half_removed_is_removed(made: Platform) -> None:
    """An instance that was marked and not unlinked, or unlinked and not noted, is finished."""
    marked, unlinked, kept = (made.store() for _ in range(3))
    made.release(marked, unlinked)
    with made.ledger.write() as tx:
        assert len(stock.begin_reclaim(tx, made.clock.now(), 10)) == 2
    made.spool.remove(unlinked.instance_id)
    with reclaiming(made, retain=1e6):
        gone(made, marked, unlinked)
    assert there(made)(kept)


def test_one_bad_file_does_not_keep_the_others(
    made: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that cannot be unlinked is told and tried again later; the others go."""
    bad, good = made.store(), made.store()
    made.release(bad, good)
    remove, faulty = Spool.remove, [bad.instance_id]

    def fail(self: Spool, instance_id: str) -> None:
        if instance_id in faulty:
            raise OSError(5, "Input/output error")
        remove(self, instance_id)

    monkeypatch.setattr(Spool, "remove", fail)
    with structlog.testing.capture_logs() as told, reclaiming(made):
        gone(made, good)
        assert there(made)(bad)
        faulty.clear()
        made.clock.advance(60)
        gone(made, bad)
    assert {
        "event": "an instance cannot be removed; it is tried again",
        "action": "reclaim.failed",
        "instance": bad.instance_id,
        "why": "Input/output error",
        "log_level": "error",
    } in told


def test_a_jobs_files_go_part_by_part(made: Platform) -> None:
    """Inputs, outputs and logs go when each one's time has passed after the job's end.

    What is gone is told with its time; the job itself stays, and so does how it came about.
    """
    job = made.until(made.submit())
    place = made.workspaces.of(job.id)
    with reclaiming(made, Keep(inputs=7 * DAY, outputs=30 * DAY, logs=90 * DAY)) as reclaimer:
        made.clock.advance(7 * DAY - 1)
        worked(made, reclaimer)
        assert place.input.exists()
        made.clock.advance(1)
        seen = reclaimed(made, job, "inputs")
        assert seen.reclaimed == {"inputs": made.clock.now()}
        assert not place.input.exists()
        assert made.output_of(job, "out") == "out\n"
        made.clock.advance(23 * DAY)
        reclaimed(made, job, "inputs", "outputs")
        assert not place.output.exists()
        assert made.log_of(job) == "log\n"
        made.clock.advance(60 * DAY)
        seen = reclaimed(made, job, "inputs", "outputs", "logs")
    assert list(place.folder.iterdir()) == [place.provenance]
    assert (seen.state, [output.path for output in seen.outputs]) == (JobState.FINISHED, ["out"])


def test_logs_may_go_before_the_rest(made: Platform) -> None:
    """The order is the administrator's: the folder goes with whatever part is the last."""
    job = made.until(made.submit("fail"))
    gone_parts: list[str] = []
    with reclaiming(made, Keep(inputs=3.0, outputs=2.0, logs=1.0)):
        for part, wait in (("logs", 1), ("outputs", 1), ("inputs", 1)):
            assert made.workspaces.of(job.id).folder.exists()
            made.clock.advance(wait)
            gone_parts.append(part)
            reclaimed(made, job, *gone_parts)
    assert not made.workspaces.of(job.id).folder.exists()


def test_a_job_that_has_not_ended_keeps_everything(made: Platform) -> None:
    """Neither time nor a full disk takes the inputs of a job that waits."""
    made.scheduler.stop(10)
    job = made.submit()
    with reclaiming(made, Keep(inputs=1.0, outputs=1.0, logs=1.0), watermark="1%") as reclaimer:
        made.clock.advance(1000 * DAY)
        worked(made, reclaimer)
        assert made.views.get(LOCAL, job.id).reclaimed == {}
    made.restart()
    assert made.until(job).state == "finished"


def test_above_the_watermark_delivered_data_goes_ahead_of_its_time(made: Platform) -> None:
    """On a disk that is too full what is delivered goes ahead of retain, then files of ended jobs.

    What is not delivered, and every log, stays.
    """
    delivered, held, unreleased = (made.store() for _ in range(3))
    with made.ledger.write() as tx:
        make.submit(tx, [held.instance_id])
    made.release(delivered, held)
    job = made.until(made.submit())
    with (
        structlog.testing.capture_logs() as told,
        reclaiming(made, retain=1e6, watermark="1%") as reclaimer,
    ):
        gone(made, delivered)
        reclaimed(made, job, "inputs", "outputs")
        assert made.log_of(job) == "log\n"
        assert there(made)(held)
        assert there(made)(unreleased)
        worked(made, reclaimer)
    assert [line["log_level"] for line in told if line["action"] == "disk.full"] == ["warning"]


def test_below_the_watermark_nothing_goes_ahead_of_its_time(made: Platform) -> None:
    """A disk with room keeps what retain and keep say."""
    delivered = made.store()
    made.release(delivered)
    job = made.until(made.submit())
    with reclaiming(made, retain=60.0, watermark="100%") as reclaimer:
        made.clock.advance(59)
        worked(made, reclaimer)
    assert there(made)(delivered)
    assert made.views.get(LOCAL, job.id).reclaimed == {}


def test_relief_ends_as_soon_as_there_is_room(
    made: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead of its time goes only what must, the oldest first, in portions."""
    monkeypatch.setattr("dicom_adapter.reclaim.PER_TRANSACTION", 1)
    files = [made.store() for _ in range(3)]
    for file in files:
        made.release(file)
        made.clock.advance(1)
    monkeypatch.setattr(
        Spool,
        "used_fraction",
        lambda self: 0.9 if self.path_of(files[1].instance_id).exists() else 0.5,
    )
    with reclaiming(made, retain=1e6, watermark="85%"):
        gone(made, files[0], files[1])
    assert there(made)(files[2])


def test_uploads_go_when_no_job_asked_for_them_for_a_day(made: Platform) -> None:
    """A question about an upload keeps it for another day; its jobs keep their own inputs."""
    data = part10()
    file = made.store(data)
    upload = dataclasses.replace(file, instance_id="far-1")
    made.uploads.receive(upload, len(data), [data])
    job = made.until(made.submit(inputs=(JobInput("1", "2", "all", (upload,)),)))
    folder = made.folder / "platform" / "uploads"
    with reclaiming(made) as reclaimer:
        made.clock.advance(DAY - 1)
        assert made.operations.missing(LOCAL, [upload]) == []
        made.clock.advance(DAY - 1)
        worked(made, reclaimer)
        assert len(list(folder.iterdir())) == 1
        made.clock.advance(1)
        made.ledger.wait_for(lambda: not list(folder.iterdir()), PATIENCE)
    assert made.operations.missing(LOCAL, [upload]) == [upload]
    assert next(made.workspaces.of(job.id).input.rglob("*.dcm")).read_bytes() == data


def test_the_log_says_what_is_kept_and_why(made: Platform) -> None:
    """At the start and after each removal a line tells how much is kept for which reason."""
    file = made.store()
    made.store()
    made.release(file)
    with structlog.testing.capture_logs() as told, reclaiming(made) as reclaimer:
        gone(made, file)
        reclaimer.stop(PATIENCE)
    assert [line["kept"] for line in told if line["action"] == "kept"] == [
        {"delivered, until `retain` has passed": 1, "kept by its job processor": 1},
        {"kept by its job processor": 1},
    ]


def test_the_status_says_what_is_kept_and_what_needs_a_person(tmp_path: Path) -> None:
    """`status` counts by reason, and tells what no time will cure."""
    settings = CONFIG.replace("watermark: 100%", "watermark: 1%")
    with running(tmp_path, settings, ManualClock()) as adapter:
        assert send(adapter.port, [make_instance(), make_instance()]) == [0, 0]
        adapter.grouped(2)
        status = adapter.service.status()
        (kept,) = status.keeping
        assert (kept.reason, kept.instances, kept.size > 0) == ("in an open group", 2, True)
        (full,) = status.attention
        assert "above storage.watermark" in full
        with adapter.service.ledger.write() as tx:
            tx.execute(text("UPDATE groups SET state = 'parked'"))
        status = adapter.service.status()
        assert [k.reason for k in status.keeping] == ["in a parked group"]
        assert status.attention[0] == "1 group is parked: see `groups list`"


def test_an_embedded_study_is_reclaimed_from_end_to_end(tmp_path: Path) -> None:
    """Once the embedded platform has taken the job the spool is empty; the job has its inputs."""
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        assert send(adapter.port, [make_instance(number=n) for n in (1, 2)]) == [0, 0]
        adapter.grouped(2)
        clock.advance(5)
        (job,) = adapter.ended_jobs(1)
        adapter.wait_for(lambda: not make.reasons(adapter.service.ledger))
        assert list((tmp_path / "data" / "spool" / "instances").iterdir()) == []
        inputs = tmp_path / "data" / "platform" / "jobs" / job.id / "input"
        assert len(list(inputs.rglob("*.dcm"))) == 2
