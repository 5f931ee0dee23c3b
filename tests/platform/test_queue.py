"""The queue of a platform that runs: its limits, its places, and a pause."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter.config import Capacity, Limits
from dicom_adapter.errors import FullError, InvalidArgumentError
from dicom_adapter.ledger import events, turns
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.model import LOCAL, Job, Waiting
from dicom_adapter.platform.records import Records
from tests.platform.harness import MIB, SOMEBODY, Platform, platform, sh, wait_for_file

GATE = 'until [ -e "$DICOM_ADAPTER_INPUT/../../../go" ]; do sleep 0.01; done'


def open_gate(made: Platform) -> None:
    """Let the jobs end that wait for it."""
    (made.folder / "platform" / "go").touch()


def waiting(made: Platform, job: Job) -> Waiting:
    """Return why a job waits."""
    found = made.views.get(LOCAL, job.id).waiting
    assert found is not None
    return found


def test_a_pause_starts_nothing_also_after_a_restart(tmp_path: Path) -> None:
    """What runs is let run, what comes is taken; the reason is told, and the trail has it."""
    with platform(tmp_path, sh(GATE)) as made:
        runs = made.until(made.submit(), "processing")
        state = made.platform.pause(LOCAL, why="a new disk")
        assert (state.running, state.waiting) == (1, 0)
        waits = made.submit()
        open_gate(made)
        assert made.until(runs).state == "finished"
        made.scheduler.stop(10)
        made.restart()
        made.scheduler.wake()
        told = waiting(made, waits)
        assert told.before == 0
        assert re.fullmatch(r"the platform was paused by local at .* UTC: a new disk", told.why)
        assert made.platform.state(LOCAL).waiting == 1
        made.platform.resume(LOCAL)
        assert made.until(waits).state == "finished"
        assert made.views.get(LOCAL, waits.id).waiting is None
        with made.ledger.read() as tx:
            trail = [
                (e.action, e.from_state, e.to_state) for e in events.of_subject(tx, "platform")
            ]
    assert trail == [("pause", "running", "paused"), ("resume", "paused", "running")]


def test_a_reason_of_a_pause_is_no_document(tmp_path: Path) -> None:
    """What is too long changes nothing."""
    with platform(tmp_path, sh("true")) as made:
        for decide in (made.platform.pause, made.platform.resume):
            with pytest.raises(InvalidArgumentError, match="reason: must have 500"):
                decide(LOCAL, why="x" * 501)
        assert made.platform.state(LOCAL).paused is None


def test_what_never_runs_takes_no_place_in_a_full_queue(tmp_path: Path) -> None:
    """A job whose inputs are not what the pipeline requires waits for nothing."""
    with platform(tmp_path, sh(GATE, limits=Limits(waiting=1)), max_jobs=1) as made:
        made.until(made.submit(), "processing")
        made.submit()
        unfit = made.submit(unmet=("modality is MR",))
        assert (unfit.state, unfit.is_unfit) == ("failed", True)
        assert made.platform.state(LOCAL).waiting == 1
        open_gate(made)


def test_a_full_queue_takes_no_more_until_it_has_room(tmp_path: Path) -> None:
    """Who submits, reruns or retries is told to come again; nothing of the job stays."""
    pipeline = sh(GATE, limits=Limits(waiting=1))
    with platform(tmp_path, pipeline, sh("true", "other"), max_jobs=1) as made:
        runs = made.until(made.submit(), "processing")
        waits = made.submit()
        told = "limits.waiting of the pipeline test is reached: 1"
        with pytest.raises(FullError, match=told):
            made.submit()
        with pytest.raises(FullError, match=told):
            made.operations.rerun(SOMEBODY, runs.id, latest=False)
        made.control.cancel(SOMEBODY, runs.id)
        assert made.until(runs).state == "cancelled"
        made.until(waits, "processing")
        more = made.submit()
        with pytest.raises(FullError, match=told):
            made.control.retry(SOMEBODY, runs.id)
        assert made.views.get(LOCAL, runs.id).state == "cancelled"
        assert made.submit("other").state == "in_queue"
        folders = {path.name for path in (tmp_path / "platform" / "jobs").iterdir()}
        assert len(folders) == 4
        assert {runs.id, waits.id, more.id} < folders
        open_gate(made)


def test_each_job_has_graphics_processors_of_its_own(tmp_path: Path) -> None:
    """Their numbers are in the environment that CUDA looks at; who asked for none has none."""
    script = 'echo "gpus:$CUDA_VISIBLE_DEVICES:" > "$DICOM_ADAPTER_OUTPUT/seen"; '
    pipelines = (
        sh(script + GATE, "one", resources={"gpus": 1}),
        sh(script + "true", "two", resources={"gpus": 2}),
        sh(script + "true", "none"),
    )
    capacity = Capacity(cpus=4, memory=2048 * MIB, gpus=3)
    with platform(tmp_path, *pipelines, capacity=capacity) as made:

        def seen(job: Job) -> str:
            return made.output_of(made.until(job), "seen").strip()

        def started(job: Job) -> Job:
            wait_for_file(made.workspaces.of(job.id).staging / "seen")
            return job

        first = started(made.submit("one"))
        assert seen(made.submit("two")) == "gpus:1,2:"
        assert seen(made.submit("none")) == "gpus::"
        second = started(made.submit("one"))
        open_gate(made)
        assert [seen(first), seen(second)] == ["gpus:0:", "gpus:1:"]


def test_who_starts_as_another_ends_has_its_graphics_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one before has not yet left, with its end in the ledger already."""
    script = f'echo "gpus:$CUDA_VISIBLE_DEVICES:" > "$DICOM_ADAPTER_OUTPUT/seen"; {GATE}'
    capacity = Capacity(cpus=4, memory=2048 * MIB, gpus=1)
    with platform(tmp_path, sh(script, resources={"gpus": 1}), capacity=capacity) as made:
        first, second = made.until(made.submit(), "processing"), made.submit()
        ends = Records.finish

        def finish(self: Records, claim: Claim, *more: Any) -> None:  # noqa: ANN401 - passed on
            ends(self, claim, *more)
            if claim.job.id == first.id:
                made.wake()
                made.until(second)

        monkeypatch.setattr(Records, "finish", finish)
        open_gate(made)
        assert made.output_of(made.until(second), "seen") == "gpus:0:\n"


def test_a_changed_limit_counts_at_once(tmp_path: Path) -> None:
    """A reload lets the jobs start that the old limit held back."""
    with platform(tmp_path, sh(GATE, limits=Limits(running=1))) as made:
        made.until(made.submit(), "processing")
        waits = made.submit()
        told = "limits.running of the pipeline test is reached: 1 run"
        assert waiting(made, waits) == Waiting(0, told)
        assert waiting(made, made.submit()) == Waiting(1, told)
        made.scheduler.reload(replace(made.queue.rules, limits={}), "requeue")
        made.until(waits, "processing")
        open_gate(made)


def test_a_daily_limit_is_waited_for_without_looking(tmp_path: Path) -> None:
    """The next job starts when the day is over, and the scheduler sleeps until then."""
    with platform(tmp_path, sh("true", limits=Limits(daily=1))) as made:
        made.until(made.submit())
        waits = made.submit()
        assert "started within 24 hours" in waiting(made, waits).why
        made.clock.advance(turns.DAY.total_seconds() - 1)
        assert made.views.get(LOCAL, waits.id).state == "in_queue"
        made.clock.advance(1)
        assert made.until(waits).state == "finished"
