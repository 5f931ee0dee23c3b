"""Jobs that run again by themselves: after what passes, at their time, and not for ever."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dicom_adapter import model
from dicom_adapter.config import Pipeline, Retries
from dicom_adapter.ledger import due
from dicom_adapter.ledger.columns import microseconds
from dicom_adapter.lifecycle import CancelPolicy
from dicom_adapter.model import LOCAL, Job
from tests.platform.harness import Platform, platform, sh
from tests.platform.test_again import be_good, retry
from tests.platform.test_cancel import GATE, actions, cancel, history, running
from tests.platform.test_leases import LEASE, give_away

BUSY = "echo no licence; [ -e ../../good ] || exit 75"


def patient(script: str = BUSY, attempts: int = 3, **values: Any) -> Pipeline:  # noqa: ANN401 - its fields
    """Return a pipeline that is repeated after exit code 75, 10 s later and then 20 s."""
    return sh(script, retries=Retries(attempts=attempts, exit_codes=(75, -9)), **values)


def backed_off(made: Platform, job: Job, retried: int) -> Job:
    """Wait until a job waits for one of its retries."""

    def look() -> Job | None:
        found = made.views.get(LOCAL, job.id)
        return found if (found.reason, found.retried) == ("backoff", retried) else None

    found = made.ledger.wait_for(look, 20)
    assert found is not None
    return found


def test_t9_a_job_runs_again_at_its_time_and_not_before(tmp_path: Path) -> None:
    """It waits 10 s, then 20 s, without being polled; others run meanwhile."""
    with platform(tmp_path, patient(), sh("true", "other"), max_jobs=1) as made:
        job = backed_off(made, made.submit(), 1)
        assert (job.state, job.attempts, job.exit_code) == ("in_queue", 1, 75)
        assert job.error == "the command ended with exit code 75; the log ends with: no licence"
        assert job.ready_at is not None
        assert (job.ready_at - made.clock.now()).total_seconds() == 10
        assert (job.started_at, job.finished_at) == (None, None)
        made.clock.advance(9.9)
        assert made.until(made.submit("other")).state == "finished"
        assert made.views.get(LOCAL, job.id) == job
        made.clock.advance(0.1)
        job = backed_off(made, job, 2)
        assert job.ready_at is not None
        assert (job.ready_at - made.clock.now()).total_seconds() == 20
        be_good(made)
        made.clock.advance(20)
        ended = made.until(job)
        assert (ended.state, ended.attempts, ended.retried) == ("finished", 3, 2)
        assert (ended.error, ended.reason, ended.ready_at) == ("", "", None)
        first, second = [event for event in history(made, job) if event.action == "requeue"]
        assert (first.actor, first.reason) == (
            "system",
            "backoff: attempt 1: the command ended with exit code 75; retry 1 of 3 in 10 s",
        )
        assert second.reason.endswith("attempt 2: the command ended with exit code 75; "
                                      "retry 2 of 3 in 20 s")  # fmt: skip


def test_r14_who_waits_for_a_job_waits_between_its_attempts(tmp_path: Path) -> None:
    """Watching it and following its log go on while it waits for its next attempt."""
    with platform(tmp_path, patient()) as made:
        job = backed_off(made, made.submit(), 1)
        changes = made.views.watch(LOCAL, job.id, 0, lambda: True)
        log = made.views.logs(LOCAL, job.id, follow=True, active=lambda: True)
        first = next(changes).job
        assert first is not None
        assert (first.reason, next(log)) == ("backoff", b"no licence\n")
        be_good(made)
        made.clock.advance(10)
        assert b"".join(log).endswith(b"no licence\n")
        *_, last = changes
        assert last.job is not None
        assert last.job.state == "finished"


def test_the_wait_has_a_cap() -> None:
    """However often it doubles, it is not longer than that."""
    rules = model.Retries(attempts=100, delay=10, max_delay=60)
    pauses = [rules.pause(retried).total_seconds() for retried in (0, 1, 2, 3, 99)]
    assert pauses == [10, 20, 40, 60, 60]


def test_exhausted_attempts_end_with_the_last_cause(tmp_path: Path) -> None:
    """After the last of them the job is failed; retried by hand it begins to count anew."""
    with platform(tmp_path, patient(attempts=1)) as made:
        job = backed_off(made, made.submit(), 1)
        made.clock.advance(10)
        ended = made.until(job)
        assert (ended.state, ended.reason, ended.retried) == ("failed", "pipeline_error", 1)
        assert (ended.attempts, ended.exit_code, ended.ready_at) == (2, 75, None)
        assert ended.error.startswith("the command ended with exit code 75; ")
        assert retry(made, ended).retried == 0
        job = backed_off(made, ended, 1)
        made.clock.advance(10)
        assert made.until(job).attempts == 4
        once = ["claim", "requeue", "claim", "fail"]
        assert actions(made, job) == ["create", *once, "retry", *once]


def test_only_what_is_named_is_repeated(tmp_path: Path) -> None:
    """Another exit code, a wrong input, a bad output and a timeout end the job at once."""
    pipelines = (
        patient("exit 3", name="other-code"),
        patient('ln -s / "$DICOM_ADAPTER_OUTPUT/x"', name="bad-output"),
        patient("trap 'exit 75' TERM; sleep 1000 & wait", name="timeout", timeout=0.1),
        patient("exit 75", name="wrong-input"),
    )
    with platform(tmp_path, *pipelines) as made:
        made.scheduler.stop(10)
        jobs = [made.submit(pipeline.name) for pipeline in pipelines]
        (file,) = made.workspaces.of(jobs[-1].id).input.rglob("*.dcm")
        file.unlink()
        made.restart()
        ended = [made.until(job) for job in jobs]
    assert [job.reason for job in ended] == [
        "pipeline_error", "output_invalid", "run_timeout", "input_error",
    ]  # fmt: skip
    assert {(job.state, job.attempts, job.retried) for job in ended} == {("failed", 1, 0)}


def test_a_signal_is_named_by_its_number_below_zero(tmp_path: Path) -> None:
    """What the kernel kills for want of memory may run again."""
    with platform(tmp_path, patient("[ -e ../../good ] || kill -9 $$")) as made:
        job = backed_off(made, made.submit(), 1)
        assert job.exit_code == -9
        be_good(made)
        made.clock.advance(10)
        assert made.until(job).state == "finished"


@pytest.mark.parametrize(
    ("policy", "state"), [("drain", "failed"), ("request", "cancelled"), ("kill", "cancelled")]
)
def test_what_somebody_wants_to_end_is_not_repeated(
    tmp_path: Path, policy: str, state: str
) -> None:
    """While a cancellation is pending, an exit code that is named makes no further attempt."""
    script = f"trap 'exit 75' TERM; {GATE}; exit 75"
    with platform(tmp_path, patient(script, cancel=CancelPolicy(policy))) as made:
        job = running(made)
        cancel(made, job)
        (made.workspaces.folder / "go").touch()
        ended = made.until(job)
        assert "requeue" not in actions(made, job)
    assert (ended.state, ended.attempts, ended.retried) == (state, 1, 0)


def test_one_that_waits_for_its_retry_can_be_cancelled(tmp_path: Path) -> None:
    """It is in the queue: it ends at once, and its time passes without it."""
    with platform(tmp_path, patient()) as made:
        job = backed_off(made, made.submit(), 1)
        assert cancel(made, job).state == "cancelled"
        made.clock.advance(1000)
        with made.ledger.read() as tx:
            assert due.next_due(tx, made.clock.now()) is None
        assert made.views.get(LOCAL, job.id).attempts == 1


def test_a_lost_job_waits_and_is_not_lost_for_ever(tmp_path: Path) -> None:
    """Whatever on_lost says, it runs again after its wait, as often as its pipeline lets it."""
    with platform(tmp_path, patient("true", attempts=1), on_lost="fail") as made:
        made.scheduler.stop(10)
        job = made.submit()
        give_away(made, job, -1)
        made.restart()
        back = backed_off(made, job, 1)
        assert back.error == "the service ended while it ran"
        assert history(made, job)[-1].reason == (
            "backoff: attempt 1: lost, the service ended while it ran; retry 1 of 1 in 10 s"
        )
        give_away(made, job, LEASE)
        made.scheduler.stop(10)
        made.restart()
        ended = made.views.get(LOCAL, job.id)
    assert (ended.state, ended.reason, ended.retried) == ("failed", "lost", 1)
    assert ended.error.startswith("the service ended while it ran; it has run again as often as ")


def test_the_wait_is_kept_over_a_restart(tmp_path: Path) -> None:
    """The time stands in the ledger: a start neither forgets it nor makes it longer."""
    with platform(tmp_path, patient()) as made:
        job = backed_off(made, made.submit(), 1)
        made.scheduler.stop(10)
        made.clock.advance(5)
        made.restart()
        assert made.views.get(LOCAL, job.id).state == "in_queue"
        be_good(made)
        made.clock.advance(5)
        assert made.until(job).state == "finished"


def test_the_wait_for_a_retry_is_none_for_its_turn(tmp_path: Path) -> None:
    """The time of queue_timeout begins when the job may run again."""
    with platform(tmp_path, patient(queue_timeout=5)) as made:
        job = backed_off(made, made.submit(), 1)
        with made.ledger.read() as tx:
            expires = tx.scalar(text("SELECT expires_at FROM jobs"))
        assert job.ready_at is not None
        assert expires == microseconds(job.ready_at) + 5_000_000
        be_good(made)
        made.clock.advance(10)
        assert made.until(job).state == "finished"
