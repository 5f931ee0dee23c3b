"""Running jobs again: under their own names, or as new ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_adapter.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    WrongStateError,
)
from dicom_adapter.ledger import control, jobs
from dicom_adapter.lifecycle import CancelPolicy, Role
from dicom_adapter.model import LOCAL, Caller, Job
from dicom_adapter.platform.workspace import Workspace, Workspaces
from tests.platform.harness import (
    SOMEBODY,
    Platform,
    leave_half_retried,
    platform,
    sh,
)
from tests.platform.test_cancel import GATE, actions, cancel, history, running

#: Fails until somebody makes the file `good`; its output is another one each time.
MOODY = """
echo attempt
[ -e ../../good ] || exit 3
date +%s.%N > "$DICOM_ADAPTER_OUTPUT/out"
"""
#: What a job and its rerun have in common.
SAME = (
    "pipeline", "pipeline_version", "command", "timeout", "requested", "project", "priority",
    "ae_title", "arguments", "instances", "cancel_policy", "rules",
)  # fmt: skip


def retry(made: Platform, job: Job, *, confirm: bool = False, dry_run: bool = False) -> Job:
    """Have a job run again as somebody would."""
    return made.control.retry(SOMEBODY, job.name, why="again", confirm=confirm, dry_run=dry_run)


def rerun(made: Platform, job: Job, name: str = "", *, latest: bool = False) -> Job:
    """Make another job of a job's definition as somebody would."""
    return made.operations.rerun(SOMEBODY, job.id, name=name, latest=latest)


def be_good(made: Platform) -> None:
    """Have the moody pipeline succeed."""
    (made.workspaces.folder / "good").touch()


def test_s109_s110_t10_a_failed_job_is_retried_under_its_own_name(tmp_path: Path) -> None:
    """Same id, same name, one more attempt; its log goes on, and its history says who."""
    with platform(tmp_path, sh(MOODY, steps=("a",))) as made:
        failed = made.until(made.submit())
        be_good(made)
        queued = retry(made, failed)
        assert (queued.state, queued.error, queued.exit_code) == ("in_queue", "", None)
        assert (queued.started_at, queued.finished_at, queued.used) == (None, None, None)
        assert [step.state for step in queued.steps] == ["waiting"]
        job = made.until(queued)
        assert (job.id, job.name, job.state) == (failed.id, failed.name, "finished")
        assert (job.attempts, len(job.outputs)) == (2, 1)
        assert made.log_of(job).count("attempt\n") == 2
        assert actions(made, job) == ["create", "claim", "fail", "retry", "claim", "finish"]
        assert (history(made, job)[3].actor, history(made, job)[3].reason) == ("somebody", "again")


def test_s110_s111_a_retry_takes_an_operator(tmp_path: Path) -> None:
    """Who may only look retries nothing; an operator what has failed, and finished work as well."""
    viewer, operator = Caller("eve", Role.VIEWER), Caller("ann", Role.OPERATOR)
    with platform(tmp_path, sh(MOODY)) as made:
        job = made.until(made.submit())
        be_good(made)
        for state in ("failed", "finished"):
            with pytest.raises(PermissionDeniedError, match="operator"):
                made.control.retry(viewer, job.id, confirm=True)
            assert (made.views.get(LOCAL, job.id), job.state) == (job, state)
            made.control.retry(operator, job.id, confirm=True)
            job = made.until(job)
        assert (job.state, job.attempts) == ("finished", 3)
        assert {one.actor for one in history(made, job) if one.action == "retry"} == {"ann"}


def test_t11_a_cancelled_job_is_retried(tmp_path: Path) -> None:
    """It forgets that it was cancelled, but for its history."""
    with platform(tmp_path, sh(GATE)) as made:
        job = running(made)
        cancel(made, job)
        cancelled = made.until(job)
        (made.workspaces.folder / "go").touch()
        retry(made, cancelled)
        again = made.until(job)
    assert (again.state, again.attempts, again.cancelled_from) == ("finished", 2, None)


def test_s107_s108_t11_a_finished_job_is_retried_when_that_is_meant(tmp_path: Path) -> None:
    """Without a confirmation nothing happens; with it, the outputs of before are kept."""
    with platform(tmp_path, sh(MOODY)) as made:
        be_good(made)
        first = made.until(made.submit())
        before = made.output_of(first, "out")
        with pytest.raises(WrongStateError, match="is finished, and its work would be done once"):
            retry(made, first)
        assert made.views.get(LOCAL, first.id) == first
        queued = retry(made, first, confirm=True)
        assert (queued.outputs, queued.superseded_outputs) == ((), {1: first.outputs})
        second = made.until(queued)
        third = made.until(retry(made, second, confirm=True))
        assert third.superseded_outputs == {1: first.outputs, 2: second.outputs}
        place = made.workspaces.of(first.id).superseded
        assert (place / "1" / "out").read_text() == before
        assert made.output_of(third, "out") != before
        made.control.delete(SOMEBODY, third.id)
        assert list(made.workspaces.folder.iterdir()) == [made.workspaces.folder / "good"]


@pytest.mark.parametrize("state", ["in_queue", "processing", "invalidated"])
def test_what_cannot_be_retried(tmp_path: Path, state: str) -> None:
    """What has not ended, or is invalidated, is refused by its state, also in a dry run."""
    with platform(tmp_path, sh(GATE), sh("true", "quick"), max_jobs=1) as made:
        if state == "invalidated":
            job = made.until(made.submit("quick"))
            made.control.invalidate(SOMEBODY, job.id, why="wrong")
        else:
            job = running(made)
            job = job if state == "processing" else made.submit()
        for dry_run in (True, False):
            with pytest.raises(WrongStateError, match=f"cannot retry a job that is {state}"):
                retry(made, job, confirm=True, dry_run=dry_run)
        (made.workspaces.folder / "go").touch()
        made.until(job, *(["invalidated"] if state == "invalidated" else ["finished"]))


def test_s108_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """It answers the job that would run again, or what would be wrong."""
    with platform(tmp_path, sh("exit 1")) as made:
        failed = made.until(made.submit())
        would = retry(made, failed, dry_run=True)
        assert (would.state, [item.state for item in would.items]) == ("in_queue", ["in_queue"])
        assert made.views.get(LOCAL, failed.id) == failed


def test_a_job_without_inputs_is_not_retried(tmp_path: Path) -> None:
    """Where its inputs were reclaimed, it is said when, and what to do."""
    with platform(tmp_path, sh("exit 1")) as made:
        failed = made.until(made.submit())
        made.workspaces.of(failed.id).reclaim("inputs")
        with made.ledger.write() as tx:
            jobs.note_reclaimed(tx, "inputs", [failed.id], made.clock.now())
        told = "were reclaimed at 2026-01-02 03:04 UTC: platform.keep.inputs had passed; send"
        with pytest.raises(WrongStateError, match=told):
            retry(made, failed)


def test_a_retry_that_fails_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the ledger does not take it, the outputs are where they were."""

    def fail(*_: object) -> None:
        supersede(*_)  # type: ignore[arg-type]
        raise ZeroDivisionError

    supersede = Workspace.supersede_outputs
    with platform(tmp_path, sh(MOODY)) as made:
        be_good(made)
        job = made.until(made.submit())
        monkeypatch.setattr(Workspace, "supersede_outputs", fail)
        with pytest.raises(ZeroDivisionError):
            retry(made, job, confirm=True)
        assert made.views.get(LOCAL, job.id) == job
        assert made.output_of(job, "out")


def test_of_two_retries_at_once_the_second_leaves_what_the_first_has_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, and the outputs lie where the first has put them."""

    @contextmanager
    def overtaken(*_: object) -> Iterator[None]:
        monkeypatch.undo()
        retry(made, job, confirm=True)
        yield

    with platform(tmp_path, sh(MOODY)) as made:
        be_good(made)
        job = made.until(made.submit())
        before = made.output_of(job, "out")
        made.scheduler.stop(10)
        monkeypatch.setattr(Workspaces, "superseding", overtaken)
        with pytest.raises(WrongStateError, match="cannot retry a job that is in_queue"):
            retry(made, job, confirm=True)
        place = made.workspaces.of(job.id).superseded / "1" / "out"
        assert place.read_text() == before
        made.restart()
        assert (made.until(job).state, place.read_text()) == ("finished", before)


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_retry_that_a_crash_cut_off(tmp_path: Path, *, is_committed: bool) -> None:
    """The next start has the outputs lie where the ledger says."""
    with platform(tmp_path, sh(MOODY)) as made:
        be_good(made)
        job = made.until(made.submit())
        before = made.output_of(job, "out")
        made.scheduler.stop(10)
        if is_committed:
            with made.ledger.write() as tx:
                control.retry(tx, job, job.items, at=made.clock.now(), actor="somebody", why="")
        else:
            leave_half_retried(made, job)
    with platform(tmp_path, sh(MOODY)) as again:
        found = again.until(job)
        if is_committed:
            place = again.workspaces.of(job.id).superseded / "1" / "out"
            assert (found.attempts, place.read_text()) == (2, before)
        else:
            assert (found, again.output_of(found, "out")) == (job, before)


def test_s97_s99_s100_a_rerun_is_another_job_of_the_same_definition(tmp_path: Path) -> None:
    """New id, new name, same inputs, same version of the pipeline; the first one is untouched."""
    pipeline = sh(MOODY, steps=("a",), timeout=30, cancel=CancelPolicy.DRAIN)
    with platform(tmp_path, pipeline) as made:
        be_good(made)
        first = made.until(made.submit(arguments={"a": "b"}))
        # What is configured now is something else.
        made.known.reload([sh("exit 9")])
        again = made.until(rerun(made, first))
        assert (again.name, again.rerun_of) == ("test-test-rerun", first.name)
        assert again.id != first.id
        for name in SAME:
            assert getattr(again, name) == getattr(first, name), name
        with made.ledger.read() as tx:
            assert list(jobs.inputs_of(tx, again.id).values()) == list(
                jobs.inputs_of(tx, first.id).values()
            )
        assert (again.state, made.views.get(LOCAL, first.id)) == ("finished", first)
        create = history(made, again)[0]
        assert (create.actor, create.reason) == ("somebody", f"rerun of {first.name}")
        named = rerun(made, first, "another")
        assert (named.name, named.rerun_of) == ("another", first.name)


def test_latest_runs_what_the_pipeline_is_now(tmp_path: Path) -> None:
    """With `latest` the definition of now is taken; one that is gone is not found."""
    with platform(tmp_path, sh("exit 1")) as made:
        first = made.until(made.submit())
        made.known.reload([sh("true")])
        again = made.until(rerun(made, first, latest=True))
        assert again.state == "finished"
        assert again.pipeline_version != first.pipeline_version
        made.known.reload([])
        with pytest.raises(NotFoundError, match="the platform has no pipeline 'test'"):
            rerun(made, first, latest=True)
        assert made.until(rerun(made, first)).state == "failed"


def test_s102_s103_a_rerun_is_allowed_from_every_state(tmp_path: Path) -> None:
    """Also of a job that waits, runs or ends, failed, or was cancelled or invalidated."""
    drained = sh(GATE, cancel=CancelPolicy.DRAIN)
    with platform(tmp_path, drained, sh("exit 1", "fail"), max_jobs=1) as made:
        failed = made.until(made.submit("fail"))
        runs, waits, cancelled = running(made), made.submit(), cancel(made, made.submit())
        again = [rerun(made, job) for job in (failed, runs, waits, cancelled)]
        cancelling = cancel(made, runs)
        again.append(rerun(made, cancelling))
        assert made.views.get(LOCAL, runs.id) == cancelling
        assert cancelling.state == "cancelling"
        (made.workspaces.folder / "go").touch()
        ended = [made.until(job).state for job in again]
        assert ended == ["failed", *["finished"] * 4]
        finished = made.views.get(LOCAL, runs.id)
        assert made.until(rerun(made, finished)).state == "finished"
        assert made.views.get(LOCAL, runs.id) == finished
        invalid = made.control.invalidate(SOMEBODY, runs.id, why="wrong")
        assert made.until(rerun(made, invalid)).state == "finished"
        assert made.views.get(LOCAL, runs.id).state == "invalidated"


def test_a_rerun_needs_another_name(tmp_path: Path) -> None:
    """The job's own name is refused by the field; a name that is taken gets a number."""
    with platform(tmp_path, sh("true")) as made:
        first = made.until(made.submit())
        with pytest.raises(InvalidArgumentError, match="name: must be another than the job's own"):
            rerun(made, first, first.name)
        names = [rerun(made, first).name for _ in range(2)]
    assert names == ["test-test-rerun", "test-test-rerun-2"]


def test_a_rerun_with_a_request_id_is_made_once(tmp_path: Path) -> None:
    """As a submission: a client that was cut off asks again, and gets the same job."""
    with platform(tmp_path, sh("true")) as made:
        first = made.until(made.submit())
        again = [
            made.operations.rerun(SOMEBODY, first.id, request_id="once", latest=False).id
            for _ in range(2)
        ]
    assert again[0] == again[1]


def test_a_rerun_has_its_inputs_from_the_first_job(tmp_path: Path) -> None:
    """Where the spool has nothing any more, the first job's own inputs do; else it is refused."""
    with platform(tmp_path, sh('ls -R "$DICOM_ADAPTER_INPUT"; true')) as made:
        first = made.until(made.submit())
        for path in (tmp_path / "spool" / "instances").rglob("*.dcm"):
            path.unlink()
        again = made.until(rerun(made, first))
        assert again.state == "finished"
        assert "000001.dcm" in made.log_of(again)
        for job in (first, again):
            made.workspaces.of(job.id).reclaim("inputs")
        with pytest.raises(WrongStateError, match="is not here: send the study again"):
            rerun(made, first)


def test_a_rerun_of_a_deleted_job_knows_its_id(tmp_path: Path) -> None:
    """What a job was made of is still told when that is gone."""
    with platform(tmp_path, sh("true")) as made:
        first = made.until(made.submit())
        again = made.until(rerun(made, first))
        made.control.delete(SOMEBODY, first.id)
        assert made.views.get(LOCAL, again.id).rerun_of == first.id
