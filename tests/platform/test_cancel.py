"""Cancelling: a job that waits never starts, one that runs is gone, one that has ended stays."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dicom_adapter.errors import InvalidArgumentError, NotFoundError, WrongStateError
from dicom_adapter.ledger import events
from dicom_adapter.lifecycle import CancelPolicy, JobState
from dicom_adapter.model import LOCAL, Event, Job
from dicom_adapter.platform.workspace import Workspace
from tests.platform.harness import SOMEBODY, Platform, platform, sh, wait_for_file
from tests.support import PATIENCE

#: Waits for a file named `go` beside the jobs' folders, so that a test decides when it ends.
GATE = 'touch ../../up; until [ -e ../../go ]; do sleep 0.01; done; echo went; echo out > "$0"'
GATE = GATE.replace('"$0"', '"$DICOM_ADAPTER_OUTPUT/out"')


def history(made: Platform, job: Job) -> list[Event]:
    """Return the moves of a job."""
    with made.ledger.read() as tx:
        return events.of_subject(tx, job.id)


def actions(made: Platform, job: Job) -> list[str]:
    """Return the names of the moves of a job."""
    return [event.action for event in history(made, job)]


def cancel(made: Platform, job: Job, why: str = "") -> Job:
    """Cancel a job as somebody would."""
    return made.control.cancel(SOMEBODY, job.name, why=why)


def running(made: Platform, pipeline: str = "test") -> Job:
    """Return a job whose command runs."""
    job = made.submit(pipeline)
    wait_for_file(made.workspaces.folder / "up")
    return job


def test_s8_s35_s56_t3_a_job_that_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    """It has no start, no attempt and no worker, and never starts afterwards."""
    with platform(tmp_path, sh(GATE), max_jobs=1) as made:
        first, waiting = running(made), made.submit()
        job = cancel(made, waiting, "another study")
        assert (job.state, job.cancelled_from) == ("cancelled", "in_queue")
        assert (job.attempts, job.started_at, job.used) == (0, None, None)
        assert job.finished_at == made.clock.now()
        assert [item.state for item in job.items] == ["cancelled"]
        (made.workspaces.folder / "go").touch()
        assert made.until(first).state == "finished"
        assert made.views.get(LOCAL, waiting.id) == job
        create, move = history(made, waiting)
        assert create.action == "create"
        assert (move.action, move.actor, move.reason) == ("cancel", "somebody", "another study")
        assert (move.from_state, move.to_state) == ("in_queue", "cancelled")


#: Has a partner in a session of its own, and starts it anew whenever it is gone; so does that one.
WATCH = """
trap "" TERM; other=$1; echo up >> ../../ups
while :; do
    kill -0 $other 2>/dev/null || { setsid sh ../../watch.sh $$ & other=$!; }; sleep 0.01
done
"""
#: Every one of them holds the other end of the log.
STUBBORN = """
trap "echo told" TERM
echo half > "$DICOM_ADAPTER_OUTPUT/half"; echo begun
spin='trap "" TERM; echo up >> ../../ups; while :; do sleep 0.01; done'
(eval "$spin") &
setsid sh -c "$spin" &
# Twice, so that nobody knows whose it was.
(setsid sh -c '(sh -c "$0" &) &' "$spin" &)
# Starts its child anew whenever that is gone.
setsid sh -c 'trap "" TERM; while :; do sh -c "$0"; done' "$spin" &
setsid sh ../../watch.sh 99999999 &
while [ "$(wc -l < ../../ups)" -lt 6 ]; do sleep 0.01; done 2> /dev/null
touch ../../up
while :; do sleep 0.01; done
"""


def test_s55_s57_to_s62_s112_t4_t5_a_job_that_runs_is_ended_by_force(tmp_path: Path) -> None:
    """Its whole tree is gone within 5 s, with what it wrote; its log stays, the next one starts.

    Its processes ignore TERM, are forked away into sessions of their own, start one another anew,
    and all of them hold the pipe of the log.
    """
    with platform(tmp_path, sh(STUBBORN), sh("true", "next"), max_jobs=1) as made:
        (made.workspaces.folder / "watch.sh").write_text(WATCH, "utf-8")
        job, after = running(made), made.submit("next")
        workspace, before = made.workspaces.of(job.id), time.monotonic()
        # The leader, the six that are up, and who starts one of them.
        assert len(_of(workspace)) >= 8
        assert cancel(made, job, "wrong pipeline").state == "cancelling"
        ended = made.until(job)
        assert time.monotonic() - before < 5
        assert (ended.state, ended.cancelled_from) == ("cancelled", "processing")
        assert [item.state for item in ended.items] == ["cancelled"]
        assert (ended.outputs, ended.exit_code) == ((), -9)
        assert ended.used is not None
        assert not [path for path in (workspace.staging, workspace.work, workspace.output)
                    if path.exists()]  # fmt: skip
        assert "told" in made.log_of(ended)
        assert list(_of(workspace)) == []
        assert made.until(after).state == "finished"
        assert actions(made, job) == ["create", "claim", "cancel", "stop"]
        assert history(made, job)[2].reason == "wrong pipeline"


def _of(workspace: Workspace) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(workspace.manifest) in process.environ().values():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("policy", "script", "state"),
    [
        pytest.param("drain", GATE, "finished", id="drain and success"),
        pytest.param("drain", f"{GATE}; exit 3", "failed", id="drain and failure"),
        pytest.param("request", f"trap '' TERM; {GATE}", "finished", id="request and refusal"),
    ],
)
def test_s113_s116_t6_what_ends_first_is_told_as_what_it_was(
    tmp_path: Path, policy: str, script: str, state: str
) -> None:
    """Where a job is let end by itself, its end says what happened, and that it was too late."""
    with platform(tmp_path, sh(script, cancel=CancelPolicy(policy))) as made:
        job = running(made)
        assert cancel(made, job).state == "cancelling"
        (made.workspaces.folder / "go").touch()
        ended = made.until(job)
    assert (ended.state, ended.cancelled_from) == (state, "processing")
    assert len(ended.outputs) == (1 if state == "finished" else 0)


def test_s117_a_request_is_followed_as_the_pipeline_likes(tmp_path: Path) -> None:
    """With `cancel: request` it gets TERM once; where it ends by that, the job is cancelled."""
    script = (
        "trap 'sleep 0.05; echo cleaned; exit 3' TERM; touch ../../up; while :; do sleep 0.01; done"
    )
    with platform(tmp_path, sh(script, cancel=CancelPolicy.REQUEST)) as made:
        job = running(made)
        cancel(made, job)
        ended = made.until(job)
        assert "cleaned" in made.log_of(ended)
    assert (ended.state, ended.exit_code, ended.error) == ("cancelled", 3, "")


def test_cancelling_again_changes_nothing(tmp_path: Path) -> None:
    """It is answered as the first time, and the history has it once."""
    with platform(tmp_path, sh(GATE, cancel=CancelPolicy.DRAIN)) as made:
        job = running(made)
        assert [cancel(made, job).state for _ in range(3)] == ["cancelling"] * 3
        assert actions(made, job) == ["create", "claim", "cancel"]
        (made.workspaces.folder / "go").touch()
        made.until(job)


def test_r14_who_waits_for_a_job_waits_while_it_is_cancelling(tmp_path: Path) -> None:
    """Watching it and following its log go on until it has ended, whatever it ends as."""
    with platform(tmp_path, sh(f"echo early; {GATE}", cancel=CancelPolicy.DRAIN)) as made:
        job = running(made)
        cancel(made, job)
        changes = made.views.watch(LOCAL, job.id, 0, lambda: True)
        log = made.views.logs(LOCAL, job.id, follow=True, active=lambda: True)
        first = next(changes).job
        assert first is not None
        assert (first.state, next(log)) == ("cancelling", b"early\n")
        (made.workspaces.folder / "go").touch()
        assert b"".join(log) == b"went\n"
        *_, last = changes
        assert last.job is not None
        assert last.job.state == "finished"


@pytest.mark.parametrize(("script", "state"), [("true", "finished"), ("exit 1", "failed")])
def test_s38_s114_what_has_ended_stays_as_it_is(tmp_path: Path, script: str, state: str) -> None:
    """A job in a final state is refused by its state, and nothing of it changes."""
    with platform(tmp_path, sh(script)) as made:
        ended = made.until(made.submit())
        with pytest.raises(WrongStateError, match=f"cannot cancel a job that is {state}"):
            cancel(made, ended)
        assert made.views.get(LOCAL, ended.id) == ended
        assert actions(made, ended)[-1] != "cancel"


def test_s38_s40_only_if_queued(tmp_path: Path) -> None:
    """Who wants to cancel what waits alone is refused where it runs."""
    with platform(tmp_path, sh(GATE), max_jobs=1) as made:
        job, waiting = running(made), made.submit()
        with pytest.raises(WrongStateError, match="the job is processing, and only one in_queue"):
            made.control.cancel(SOMEBODY, job.id, only_if_queued=True)
        found = made.control.cancel(SOMEBODY, waiting.id, only_if_queued=True)
        assert found.state == "cancelled"
        (made.workspaces.folder / "go").touch()
        assert made.until(job).state == "finished"


def test_what_cannot_be_cancelled(tmp_path: Path) -> None:
    """A job that is not there, and a reason that is none, are named."""
    with platform(tmp_path, sh("true")) as made:
        with pytest.raises(NotFoundError, match="no job has the id or name 'x'"):
            made.control.cancel(SOMEBODY, "x")
        with pytest.raises(InvalidArgumentError, match="reason: must have 500 characters at most"):
            made.control.cancel(SOMEBODY, "x", why="x" * 501)


def test_a_job_that_is_cancelled_before_its_process_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its claim and its command, the command is not started any more."""
    prepare, named = Workspace.prepare, threading.Event()

    def cancelled_meanwhile(*arguments: object) -> None:
        named.wait(PATIENCE)
        cancel(made, job)
        prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Workspace, "prepare", cancelled_meanwhile)
    with platform(tmp_path, sh("touch ../../up"), max_jobs=1) as made:
        job = made.submit()
        named.set()
        ended = made.until(job)
        assert (ended.state, ended.exit_code, ended.attempts) == ("cancelled", None, 1)
        assert not (made.workspaces.folder / "up").exists()


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03])
def test_r4_cancel_at_any_moment_of_a_short_job(tmp_path: Path, pause: float) -> None:
    """Wherever it hits, the job ends, as cancelled or as what it was, with a history that fits."""
    with platform(tmp_path, sh("echo out > $DICOM_ADAPTER_OUTPUT/out")) as made:
        for _ in range(15):
            job = made.submit()
            time.sleep(pause)
            with suppress(WrongStateError):
                cancel(made, job)
            ended = made.until(job)
            assert ended.state in (JobState.CANCELLED, JobState.FINISHED)
            assert len(ended.outputs) == (ended.state == JobState.FINISHED)
            assert actions(made, job) in (
                ["create", "cancel"],
                ["create", "claim", "cancel", "stop"],
                ["create", "claim", "cancel", "finish"],
                ["create", "claim", "finish"],
            )
