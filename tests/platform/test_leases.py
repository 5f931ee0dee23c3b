import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import events, leases, queue
from dicom_adapter.ledger.columns import EPOCH, MICROSECOND
from dicom_adapter.model import LOCAL, Job
from dicom_adapter.platform.heartbeat import HEARTBEAT, RETRY
from tests.ledger import make
from tests.platform.harness import Platform, platform, sh, wait_for_file
from tests.platform.test_scheduler import GATE
from tests.support import PATIENCE

LEASE = leases.LEASE.total_seconds()
BEAT = HEARTBEAT.total_seconds()
OTHER = "0123456789abcdef" * 2
STAGED = 'echo once >> "$DICOM_ADAPTER_OUTPUT/out"; ' + GATE


def open_gate(made: Platform) -> None:
    """Let every job end."""
    (made.folder / "platform" / "go").touch()


def give_away(made: Platform, job: Job, seconds: float) -> None:
    """Have another hold a job from now on, for so many seconds."""
    until = (made.clock.now() - EPOCH) // MICROSECOND + int(seconds * 1e6)
    with made.ledger.write() as tx:
        tx.execute(
            text(
                "UPDATE jobs SET state = 'processing', attempts = 1, lease = :lease, "
                "leased_until = :until WHERE id = :id"
            ),
            {"lease": OTHER, "until": until, "id": job.id},
        )


def leased_until(made: Platform, job: Job) -> datetime:
    """Return when a job's lease runs out."""
    with made.ledger.read() as tx:
        query = text("SELECT leased_until FROM jobs WHERE id = :id")
        until: int = tx.scalar(query, {"id": job.id})
        return EPOCH + until * MICROSECOND


def lease_of(made: Platform, job: Job) -> str:
    """Return the token of a job's lease."""
    with made.ledger.read() as tx:
        return make.lease_of(tx, job.id)


def moves(made: Platform, job: Job) -> list[tuple[str, str]]:
    """Return the moves that were made of a job, with their reasons."""
    with made.ledger.read() as tx:
        return [(event.action, event.reason) for event in events.of_subject(tx, job.id)]


def advance_until(made: Platform, look: Callable[[], bool]) -> None:
    """Let time pass in small steps until something is so."""
    for _ in range(int(PATIENCE * 100)):
        if look():
            return
        made.clock.advance(RETRY.total_seconds())
        time.sleep(0.01)
    raise TimeoutError("it did not come to be so")


def left(made: Platform) -> None:
    """Wait until a run has ended."""
    assert made.ended.wait(PATIENCE)
    made.ended.clear()


def test_r13_a_run_whose_lease_another_has_drops_its_work(tmp_path: Path) -> None:
    """It neither finishes the job nor touches the folder, which is the other's; one line says so.

    When the other's lease has run out as well, the job runs again here.
    """
    with platform(tmp_path, sh(STAGED)) as made, capture_logs() as told:
        job = made.submit()
        workspace = made.workspaces.of(job.id)
        wait_for_file(workspace.staging / "out")
        give_away(made, job, LEASE)
        open_gate(made)
        left(made)
        found = made.views.get(LOCAL, job.id)
        assert (found.state, found.finished_at, found.outputs) == ("processing", None, ())
        assert lease_of(made, job) == OTHER
        assert not workspace.output.exists()
        assert (workspace.staging / "out").exists()
        assert [line["action"] for line in told].count("job.lease_lost") == 1
        assert moves(made, job)[1:] == [("claim", "")]
        made.clock.advance(LEASE)
        ended = made.until(job)
        assert (ended.state, ended.attempts) == ("finished", 2)
        assert made.output_of(job, "out") == "once\n"
        assert moves(made, job)[2:] == [("requeue", "lost"), ("claim", ""), ("finish", "")]


@pytest.mark.parametrize("script", ["exit 1", 'ln -s / "$DICOM_ADAPTER_OUTPUT/x"'])
def test_a_run_that_fails_after_its_lease_was_lost_changes_nothing(
    tmp_path: Path, script: str
) -> None:
    """A failure of a stale attempt is not the job's, and removes nothing of the other's."""
    with platform(tmp_path, sh(f"{STAGED}; {script}")) as made:
        job = made.submit()
        workspace = made.workspaces.of(job.id)
        wait_for_file(workspace.staging / "out")
        give_away(made, job, LEASE)
        open_gate(made)
        left(made)
        assert made.views.get(LOCAL, job.id).state == "processing"
        assert (workspace.staging / "out").exists()


@pytest.mark.parametrize(
    ("state", "kept"), [("finished", {"output"}), ("failed", set()), ("in_queue", set())]
)
def test_what_a_stale_run_leaves_goes_where_nobody_else_has_it(
    tmp_path: Path, state: str, kept: set[str]
) -> None:
    """The outputs of a job that another attempt has finished stay, all else of this one goes."""
    with platform(tmp_path, sh(STAGED), max_jobs=1) as made:
        job = made.submit()
        workspace = made.workspaces.of(job.id)
        wait_for_file(workspace.staging / "out")
        workspace.output.mkdir()
        with made.ledger.write() as tx:
            # As another does that has taken it over, and ended it, while this process hung.
            tx.execute(text(f"UPDATE jobs SET state = '{state}', lease = NULL"))  # noqa: S608 - our own word
            # Nothing is to take it again before the test has looked.
            tx.execute(text("UPDATE jobs SET cpus = 1000"))
        open_gate(made)
        left(made)
        assert made.views.get(LOCAL, job.id).state == state
        found = {path.name for path in workspace.folder.iterdir()}
        assert found & {"work", "staging", "output"} == kept


def test_a_run_is_ended_when_its_lease_is_taken(tmp_path: Path) -> None:
    """The heartbeat sees that another has the job, and ends the process that works for nothing."""
    script = 'trap "echo ended > $DICOM_ADAPTER_INPUT/../../ended; exit 0" TERM; ' + STAGED
    with platform(tmp_path, sh(script)) as made:
        job = made.submit()
        wait_for_file(made.workspaces.of(job.id).staging / "out")
        give_away(made, job, LEASE)
        made.clock.advance(BEAT)
        left(made)
        assert (tmp_path / "platform" / "jobs" / "ended").exists()
        assert made.views.get(LOCAL, job.id).state == "processing"


def test_leases_are_renewed_while_their_jobs_run(tmp_path: Path) -> None:
    """However long jobs run, they stay this attempt's: the heartbeat renews all at once."""
    with platform(tmp_path, sh(GATE)) as made:
        jobs = [made.until(made.submit(), "processing") for _ in range(2)]
        for _ in range(6):
            made.clock.advance(BEAT)
            until = made.clock.now() + leases.LEASE

            def renewed(until: datetime = until) -> bool:
                return {leased_until(made, job) for job in jobs} == {until}

            made.ledger.wait_for(renewed, PATIENCE)
        open_gate(made)
        ended = [made.until(job) for job in jobs]
    assert [(job.state, job.attempts) for job in ended] == [("finished", 1)] * 2


def test_a_renewal_that_fails_is_tried_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that cannot be written for a while costs no job its lease."""
    with platform(tmp_path, sh(GATE)) as made, capture_logs() as told:
        job = made.until(made.submit(), "processing")
        write, refused = made.ledger.write, threading.Semaphore(0)

        def refuse() -> NoReturn:
            refused.release()
            raise UnavailableError("ledger: disk full")

        wait_for_file(made.workspaces.of(job.id).staging)
        monkeypatch.setattr(made.ledger, "write", refuse)
        made.clock.advance(BEAT)
        assert refused.acquire(timeout=PATIENCE)
        for _ in range(3):
            advance_until(made, lambda: refused.acquire(blocking=False))
        monkeypatch.setattr(made.ledger, "write", write)
        before = leased_until(made, job)
        advance_until(made, lambda: leased_until(made, job) > before)
        open_gate(made)
        assert made.until(job).attempts == 1
    assert [line["action"] for line in told].count("lease.not_renewed") == 1


@pytest.mark.parametrize("on_lost", ["requeue", "fail"])
def test_r5_a_job_whose_holder_stopped_renewing_is_taken_over(tmp_path: Path, on_lost: str) -> None:
    """When the lease of another has run out, its job is treated as one that a crash left."""
    with platform(tmp_path, sh(GATE), max_jobs=1, on_lost=on_lost) as made:
        own = made.until(made.submit(), "processing")
        job = made.submit()
        half = made.workspaces.of(job.id).staging / "half"
        half.parent.mkdir()
        half.touch()
        give_away(made, job, LEASE / 2)
        made.wake()
        made.clock.advance(LEASE / 2 - 1)
        assert made.views.get(LOCAL, job.id).state == "processing"
        made.clock.advance(1)
        found = made.until(job, "in_queue", "failed")
        assert (found.reason, half.exists()) == ("lost", False)
        open_gate(made)
        assert made.until(own).attempts == 1
        ended = made.until(job)
    if on_lost == "requeue":
        assert (ended.state, ended.attempts) == ("finished", 2)
    else:
        assert (ended.state, ended.finished_at) == ("failed", made.clock.now())
        assert ended.error.startswith("whoever ran it stopped renewing its lease; ")


def test_r12_a_job_whose_end_cannot_be_recorded_runs_again_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that lets nothing be recorded leaves a lease that runs out; the job is found then."""
    with platform(tmp_path, sh(GATE)) as made:
        job = made.submit()
        wait_for_file(made.workspaces.of(job.id).staging)
        broken = threading.Event()

        def fail(*_: object, **__: object) -> NoReturn:
            broken.set()
            raise ValueError("a mistake of ours")

        with monkeypatch.context() as patched:
            patched.setattr(queue, "move", fail)
            open_gate(made)
            left(made)
            assert broken.is_set()
            assert made.views.get(LOCAL, job.id).state == "processing"
        made.clock.advance(LEASE)
        ended = made.until(job)
    assert (ended.state, ended.attempts) == ("finished", 2)


def test_what_becomes_of_lost_jobs_can_change_while_it_runs(tmp_path: Path) -> None:
    """A reload of `platform.on_lost` counts for the next job that is lost."""
    with platform(tmp_path, sh(GATE), max_jobs=1) as made:
        made.until(made.submit(), "processing")
        job = made.submit()
        give_away(made, job, LEASE)
        made.on_lost = "fail"
        made.scheduler.reload(made.rules(), made.on_lost)
        made.clock.advance(LEASE)
        assert made.until(job).reason == "lost"
        open_gate(made)
