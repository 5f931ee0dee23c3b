import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from dicom_adapter import files
from dicom_adapter.config import Capacity
from dicom_adapter.errors import UnavailableError
from dicom_adapter.model import LOCAL, Job, Priority
from dicom_adapter.platform import records
from dicom_adapter.platform.workspace import Workspace
from tests.ledger import make
from tests.platform.harness import MIB, Platform, platform, sh, wait_for_file
from tests.support import PATIENCE

#: Waits for a file named `go` beside the job's folder, so that a test decides when it ends.
GATE = 'until [ -e "$DICOM_ADAPTER_INPUT/../../../go" ]; do sleep 0.01; done'


def spans(made: Platform, jobs: list[Job]) -> list[tuple[float, float]]:
    """Return when each job's command began and ended, by the clock of the machine."""
    found = []
    for job in jobs:
        begin, end = made.output_of(made.until(job), "span").split()
        found.append((float(begin), float(end)))
    return found


TIMED = sh('b=$(date +%s.%N); sleep 0.02; echo $b $(date +%s.%N) > "$DICOM_ADAPTER_OUTPUT/span"')


def test_s3_s45_one_job_at_a_time_is_strictly_sequential(tmp_path: Path) -> None:
    """With max_jobs 1 no two jobs ever overlap, and they run by priority, then in order."""
    with platform(tmp_path, TIMED, sh(GATE, "gate"), max_jobs=1) as made:
        first = made.until(made.submit("gate"), "processing")
        order = [Priority.LOWER, Priority.NORMAL, Priority.IMMEDIATE, Priority.NORMAL]
        jobs = [made.submit(priority=priority) for priority in order]
        assert made.views.get(LOCAL, jobs[0].id).state == "in_queue"
        (tmp_path / "platform" / "go").touch()
        made.until(first)
        lower, normal, immediate, second_normal = spans(made, jobs)
    ran = [immediate, normal, second_normal, lower]
    assert all(before[1] <= after[0] for before, after in pairwise(ran))


def test_s46_jobs_run_together_as_far_as_max_jobs_allows(tmp_path: Path) -> None:
    """Two of three jobs run at once where two may; the third follows by itself."""
    with platform(tmp_path, sh(GATE), max_jobs=2) as made:
        jobs = [made.submit() for _ in range(3)]
        for job in jobs[:2]:
            made.until(job, "processing")
        assert made.views.get(LOCAL, jobs[2].id).state == "in_queue"
        (tmp_path / "platform" / "go").touch()
        assert [made.until(job).state for job in jobs] == ["finished"] * 3


@pytest.mark.parametrize(
    "big",
    [{"cpus": 4}, {"memory": 2048 * MIB}, {"gpus": 1, "cpus": 3}],
    ids=["cpus", "memory", "gpus"],
)
def test_s42_s46_r13b_a_job_that_does_not_fit_waits_and_nothing_overtakes_it(
    tmp_path: Path, big: dict[str, int]
) -> None:
    """A big job at the head starts as soon as there is room; a small one behind it waits too."""
    pipelines = (
        sh(GATE, "running", resources={"gpus": 1}),
        sh("true", "big", resources=big),
        sh("true", "small"),
    )
    capacity = Capacity(cpus=4, memory=2048 * MIB, gpus=1)
    with platform(tmp_path, *pipelines, capacity=capacity) as made:
        running = made.until(made.submit("running"), "processing")
        waiting, small = made.submit("big"), made.submit("small")
        assert made.views.get(LOCAL, running.id).state == "processing"
        assert {made.views.get(LOCAL, job.id).state for job in (waiting, small)} == {"in_queue"}
        (tmp_path / "platform" / "go").touch()
        waiting, small = made.until(waiting), made.until(small)
        with made.ledger.read() as tx:
            claims = tx.execute(
                text("SELECT subject FROM events WHERE action = 'claim' ORDER BY seq")
            ).scalars()
            assert list(claims) == [running.id, waiting.id, small.id]


def test_t9_a_drained_job_goes_back_and_finishes_after_the_start(tmp_path: Path) -> None:
    """A stop ends what runs, drops what it staged, and puts it back; the start runs it again."""
    script = 'echo once >> "$DICOM_ADAPTER_OUTPUT/out"; ' + GATE
    with platform(tmp_path, sh(script)) as made:
        job = made.submit()
        staged = made.workspaces.of(job.id).staging / "out"
        wait_for_file(staged)
        made.scheduler.stop(10)
        back = made.views.get(LOCAL, job.id)
        assert (back.state, back.reason, back.started_at) == ("in_queue", "drain", None)
        assert not staged.exists()
        (tmp_path / "platform" / "go").touch()
        made.restart()
        ended = made.until(job)
        assert (ended.state, ended.attempts) == ("finished", 2)
        assert made.output_of(job, "out") == "once\n"
        assert "--- attempt 2 ---" in made.workspaces.of(job.id).log.read_text()


def test_a_drained_job_is_not_finished_by_its_exit_code(tmp_path: Path) -> None:
    """A command that answers TERM with exit code 0 and half an output goes back all the same."""
    script = 'trap "exit 0" TERM; echo half > "$DICOM_ADAPTER_OUTPUT/out"; ' + GATE
    with platform(tmp_path, sh(script)) as made:
        job = made.submit()
        wait_for_file(made.workspaces.of(job.id).staging / "out")
        made.scheduler.stop(10)
        back = made.views.get(LOCAL, job.id)
    assert (back.state, back.reason, back.outputs) == ("in_queue", "drain", ())


def test_r5_what_a_crash_left_is_put_right(tmp_path: Path) -> None:
    """A job that the ledger has as processing goes back; a submission that was cut off goes."""
    with platform(tmp_path, sh("true")) as made:
        made.scheduler.stop(10)
        job = made.submit()
        lost = made.workspaces.of(job.id)
        lost.staging.mkdir()
        (lost.staging / "half").touch()
        with made.ledger.write() as tx:
            tx.execute(text("UPDATE jobs SET state = 'processing', attempts = 1"))
        orphan = made.workspaces.of("0" * 32)
        orphan.input.mkdir(parents=True)
        made.restart()
        ended = made.until(job)
        assert not orphan.folder.exists()
    assert (ended.state, ended.attempts, ended.outputs) == ("finished", 2, ())


def test_r5_a_job_that_a_crash_left_cancelling_is_cancelled(tmp_path: Path) -> None:
    """Its processes are gone, so the stop is done: it does not run again, and keeps nothing."""
    with platform(tmp_path, sh("true"), on_lost="fail") as made:
        made.scheduler.stop(10)
        job = made.submit()
        staging = made.workspaces.of(job.id).staging
        staging.mkdir()
        with made.ledger.write() as tx:
            tx.execute(text("UPDATE jobs SET state = 'cancelling', attempts = 1"))
        made.restart()
        ended = made.views.get(LOCAL, job.id)
        assert not staging.exists()
    assert (ended.state, ended.attempts, ended.finished_at) == ("cancelled", 1, made.clock.now())


@pytest.mark.parametrize("left", ["output", "log.txt", "job.json"])
def test_what_a_ledger_does_not_know_is_left_where_it_was_started(
    tmp_path: Path, left: str
) -> None:
    """Results and logs outlive a ledger that was restored from an older copy; one line says so."""
    with platform(tmp_path, sh("true")) as made, capture_logs() as told:
        made.scheduler.stop(10)
        known = made.submit()
        unknown, cut_off = (made.workspaces.of(digit * 32) for digit in "01")
        for workspace in (unknown, cut_off):
            workspace.input.mkdir(parents=True)
        (unknown.folder / left).touch()
        made.restart()
        made.until(known)
        assert unknown.input.exists()
        assert (unknown.folder / left).exists()
        assert not cut_off.folder.exists()
    lines = [line for line in told if line["action"] == "platform.unknown_workspaces"]
    assert [(line["folders"], line["log_level"]) for line in lines] == [(1, "warning")]


def test_r12_an_end_is_recorded_once_the_ledger_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when a job ends does not leave it processing for ever."""
    monkeypatch.setattr(records, "LEDGER_PAUSE_SECONDS", 0.01)
    with platform(tmp_path, sh(GATE)) as made:
        job = made.until(made.submit(), "processing")
        write, refusals = made.ledger.write, iter(range(3))

        @contextmanager
        def full_at_first() -> Iterator[Connection]:
            with write() as tx:
                if next(refusals, None) is not None:
                    tx.execute(
                        text(f"PRAGMA max_page_count={tx.scalar(text('PRAGMA page_count'))}")
                    )
                    for _ in range(1000):
                        make.add_instance(tx)
                tx.execute(text("PRAGMA max_page_count=1000000"))
                yield tx

        monkeypatch.setattr(made.ledger, "write", full_at_first)
        (tmp_path / "platform" / "go").touch()
        assert made.until(job).state == "finished"
    assert next(refusals, None) is None


def test_r12_a_stop_while_the_ledger_is_full_leaves_the_job_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that cannot be recorded before the stop is not lost: the job runs again."""
    with platform(tmp_path, sh(GATE)) as made:
        job = made.until(made.submit(), "processing")
        write = made.ledger.write

        def refuse() -> NoReturn:
            raise UnavailableError("ledger: disk full")

        monkeypatch.setattr(made.ledger, "write", refuse)
        made.scheduler.stop(10)
        assert made.views.get(LOCAL, job.id).state == "processing"
        monkeypatch.setattr(made.ledger, "write", write)
        (tmp_path / "platform" / "go").touch()
        made.restart()
        ended = made.until(job)
    assert (ended.state, ended.attempts) == ("finished", 2)


@pytest.mark.parametrize("stopped", [False, True], ids=["room", "stop"])
def test_a_job_waits_for_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    """A disk that is full when a job is to start does not fail it: it starts once there is room."""
    full = threading.Event()
    prepare = Workspace.prepare

    def refuse(*_: object) -> NoReturn:
        full.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Workspace, "prepare", refuse)
    if not stopped:
        monkeypatch.setattr(files, "NO_ROOM_PAUSE_SECONDS", 0.01)
    with platform(tmp_path, sh("true")) as made:
        job = made.submit()
        assert full.wait(PATIENCE)
        if stopped:
            made.scheduler.stop(PATIENCE)
            assert made.views.get(LOCAL, job.id).state == "in_queue"
        monkeypatch.setattr(Workspace, "prepare", prepare)
        if stopped:
            made.restart()
        assert made.until(job).state == "finished"


def test_a_job_whose_attempt_cannot_be_removed_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault on the way to a job's end does not leave it in processing."""
    discard = Workspace.discard_attempt

    def fail(workspace: Workspace) -> None:
        if workspace.staging.exists():
            raise OSError(errno.EIO, "Input/output error")
        discard(workspace)

    monkeypatch.setattr(Workspace, "discard_attempt", fail)
    with platform(tmp_path, sh("exit 1")) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason) == ("failed", "internal")
