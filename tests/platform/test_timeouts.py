"""What waits too long, or is silent for too long, ends; what is alive goes on."""

from pathlib import Path

import pytest

from dicom_adapter.lifecycle import CancelPolicy
from dicom_adapter.model import LOCAL
from tests.platform.harness import platform, sh
from tests.platform.test_again import retry
from tests.platform.test_cancel import GATE, actions, cancel, history, running

STEP = """echo '{"step": "a", "progress": 0.1}' >> "$DICOM_ADAPTER_PROGRESS"; sleep 0.2;"""


def test_t14_a_job_that_waits_too_long_fails_by_itself(tmp_path: Path) -> None:
    """It ends at its moment, without a poll and without having run; who came later waits on."""
    with platform(tmp_path, sh(GATE, queue_timeout=60), max_jobs=1) as made:
        first, early = running(made), made.submit()
        made.clock.advance(30)
        late = made.submit()
        made.clock.advance(29)
        assert made.views.get(LOCAL, early.id).state == "in_queue"
        made.clock.advance(1)
        job = made.until(early)
        assert (job.state, job.reason, job.attempts) == ("failed", "queue_timeout", 0)
        assert job.error.startswith("it waited longer than its queue_timeout of 60.0 s: give ")
        assert (job.started_at, job.finished_at) == (None, made.clock.now())
        assert [item.state for item in job.items] == ["failed"]
        move = history(made, job)[-1]
        assert (move.action, move.actor, move.reason) == ("expire", "system", "queue_timeout")
        assert [made.views.get(LOCAL, other.id).state for other in (first, late)] == [
            "processing", "in_queue",
        ]  # fmt: skip
        (made.workspaces.folder / "go").touch()
        # What runs is not what waits, however long it ran.
        assert [made.until(other).state for other in (first, late)] == ["finished"] * 2


def test_the_wait_begins_anew_with_each_return_to_the_queue(tmp_path: Path) -> None:
    """A job that expired can be retried, and has its whole time again."""
    with platform(tmp_path, sh(GATE, queue_timeout=60), max_jobs=1) as made:
        first, waiting = running(made), made.submit()
        made.clock.advance(60)
        made.until(waiting)
        retry(made, waiting)
        made.clock.advance(59)
        assert made.views.get(LOCAL, waiting.id).state == "in_queue"
        made.clock.advance(1)
        assert made.until(waiting).reason == "queue_timeout"
        assert actions(made, waiting) == ["create", "expire", "retry", "expire"]
        (made.workspaces.folder / "go").touch()
        made.until(first)


def test_what_expired_while_the_service_stood_still_fails_at_the_start(tmp_path: Path) -> None:
    """The time is the job's, not the service's."""
    with platform(tmp_path, sh("true", queue_timeout=60)) as made:
        made.scheduler.stop(10)
        job = made.submit()
        made.clock.advance(61)
        made.restart()
        assert made.until(job).reason == "queue_timeout"


def test_a_silent_job_is_ended(tmp_path: Path) -> None:
    """It fails with a reason of its own, and what it wrote stays in its log."""
    with platform(tmp_path, sh("echo begun; sleep 1000", silence_timeout=1.0)) as made:
        job = made.until(made.submit())
        assert made.log_of(job) == "begun\n"
    assert (job.state, job.reason, job.exit_code) == ("failed", "silence_timeout", -15)
    assert job.error == "it told nothing for longer than its silence_timeout of 1.0 s"


@pytest.mark.parametrize("sign", ["echo alive; sleep 0.2;", STEP], ids=["log", "progress"])
def test_a_job_that_shows_life_goes_on(tmp_path: Path, sign: str) -> None:
    """Lines of the log count, and so does progress, though there is none of the other."""
    with platform(tmp_path, sh(sign * 12, silence_timeout=2.0, steps=("a",))) as made:
        assert made.until(made.submit()).state == "finished"


def test_a_silent_job_that_is_let_end_by_itself_is_ended_all_the_same(tmp_path: Path) -> None:
    """A cancellation that waits for the job's own end does not take its limits away."""
    policy = CancelPolicy.DRAIN
    with platform(tmp_path, sh(GATE, cancel=policy, silence_timeout=1.5)) as made:
        job = running(made)
        cancel(made, job)
        ended = made.until(job)
    assert (ended.state, ended.reason) == ("failed", "silence_timeout")
