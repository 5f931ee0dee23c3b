"""What people do to jobs that have ended: they declare them invalid, and delete them."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from dicom_adapter.errors import InvalidArgumentError, NotFoundError, WrongStateError
from dicom_adapter.ledger import control, jobs
from dicom_adapter.ledger.schema import metadata
from dicom_adapter.lifecycle import TERMINAL
from dicom_adapter.model import LOCAL, Job
from dicom_adapter.platform.workspace import Workspaces
from tests.platform.harness import SOMEBODY, Platform, platform, sh
from tests.platform.test_cancel import GATE, actions, cancel, history, running

OUTPUT = sh('echo out > "$DICOM_ADAPTER_OUTPUT/out"; echo log', steps=("a",))
FAILING = sh("exit 1", "fail")


def invalidate(made: Platform, job: Job, why: str = "wrong plug-in") -> Job:
    """Declare a job's outputs wrong as somebody would."""
    return made.control.invalidate(SOMEBODY, job.name, why=why)


def delete(made: Platform, job: Job) -> Job:
    """Delete a job as somebody would."""
    return made.control.delete(SOMEBODY, job.name, why="not needed")


def ended_in(made: Platform, state: str) -> Job:
    """Return a job that has ended in a state."""
    if state == "cancelled":
        made.scheduler.stop(10)
        job = cancel(made, made.submit())
        made.restart()
        return job
    job = made.until(made.submit("fail" if state == "failed" else "test"))
    return invalidate(made, job) if state == "invalidated" else job


def test_s9_s10_s36_t12_a_finished_job_is_invalidated(tmp_path: Path) -> None:
    """It keeps its outputs and its end; who did it, when and why is in its history."""
    with platform(tmp_path, OUTPUT) as made:
        finished = made.until(made.submit())
        made.clock.advance(60)
        job = invalidate(made, finished, "registered before the series was complete")
        assert job.state == "invalidated"
        assert (job.outputs, job.finished_at) == (finished.outputs, finished.finished_at)
        assert made.output_of(job, "out") == "out\n"
        move = history(made, job)[-1]
        assert (move.from_state, move.to_state) == ("finished", "invalidated")
        assert (move.actor, move.at) == ("somebody", made.clock.now())
        assert move.reason == "registered before the series was complete"


def test_s37_only_what_is_finished_is_invalidated(tmp_path: Path) -> None:
    """In every other state it is refused, and nothing changes."""
    with platform(tmp_path, OUTPUT, FAILING, sh(GATE, "gate"), max_jobs=1) as made:
        jobs = [ended_in(made, state) for state in ("failed", "cancelled", "invalidated")]
        jobs += [running(made, "gate"), made.submit()]
        for job in jobs:
            before = made.views.get(LOCAL, job.id)
            told = f"cannot invalidate a job that is {before.state}: it must be finished"
            with pytest.raises(WrongStateError, match=told):
                invalidate(made, job)
            assert made.views.get(LOCAL, job.id) == before
        (made.workspaces.folder / "go").touch()
        made.until(jobs[-1])


@pytest.mark.parametrize("why", ["", "  \n"])
def test_an_invalidation_needs_a_reason(tmp_path: Path, why: str) -> None:
    """Without one it is refused by the field's name."""
    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit())
        with pytest.raises(InvalidArgumentError, match="reason: must say why"):
            invalidate(made, job, why)
        assert made.views.get(LOCAL, job.id) == job


def rows(tx: Connection) -> dict[str, int]:
    """Return how many rows each table of jobs has."""
    return {
        name: len(tx.execute(select(table)).all())
        for name, table in metadata.tables.items()
        if name.startswith("job")
    }


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_s63_s64_s65_s69_t13_a_job_that_has_ended_is_deleted(tmp_path: Path, state: str) -> None:
    """Its record, outputs and log are gone; the image it was made of and its history stay."""
    with platform(tmp_path, OUTPUT, FAILING) as made:
        other = made.until(made.submit(name="other"))
        with made.ledger.read() as tx:
            before = rows(tx)
        job = ended_in(made, state)
        with made.ledger.read() as tx:
            assert rows(tx)["jobs"] == before["jobs"] + 1
        assert delete(made, job).state == state
        with made.ledger.read() as tx:
            assert rows(tx) == before
        assert [path.name for path in made.workspaces.folder.iterdir()] == [other.id]
        assert len(list((tmp_path / "spool" / "instances").rglob("*.dcm"))) == 2
        with pytest.raises(NotFoundError, match="no job has the id or name"):
            made.views.get(LOCAL, job.id)
        last = made.views.history(LOCAL, job.id)[-1]
        assert (last.action, last.from_state, last.to_state) == ("delete", state, "")
        assert (last.actor, last.reason) == ("somebody", "not needed")
        with pytest.raises(NotFoundError):
            delete(made, job)


def test_s66_what_has_not_ended_is_not_deleted(tmp_path: Path) -> None:
    """A job that waits, runs or is being cancelled is refused, and goes on."""
    with platform(tmp_path, sh(f"trap '' TERM; {GATE}", cancel="drain"), max_jobs=1) as made:
        job, waiting = running(made), made.submit()
        for state in ("processing", "cancelling"):
            with pytest.raises(WrongStateError, match=f"cannot delete a job that is {state}"):
                delete(made, job)
            cancel(made, job)
        with pytest.raises(WrongStateError, match="cannot delete a job that is in_queue"):
            delete(made, waiting)
        (made.workspaces.folder / "go").touch()
        assert made.until(job).state == "finished"
        assert made.output_of(job, "out") == "out\n"
        made.until(waiting)


def test_a_deletion_that_fails_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the ledger does not take it, the files are there again."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit())
        monkeypatch.setattr(control, "remove", fail)
        with pytest.raises(ZeroDivisionError):
            delete(made, job)
        assert made.output_of(job, "out") == "out\n"
        assert made.log_of(job) == "log\n"


def test_of_two_deletions_at_once_the_second_leaves_the_first_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds no job, and brings back nothing of what the first is just removing."""

    def overtaken(workspaces: Workspaces, job_id: str) -> None:
        with pytest.raises(NotFoundError):
            delete(made, job)
        remove(workspaces, job_id)

    def late(*_: object, **__: object) -> Job:
        return job

    remove = Workspaces.remove_condemned
    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit())
        monkeypatch.setattr(jobs, "get", late)
        monkeypatch.setattr(Workspaces, "remove_condemned", overtaken)
        delete(made, job)
        assert list(made.workspaces.folder.iterdir()) == []


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_deletion_that_a_crash_cut_off(tmp_path: Path, *, is_committed: bool) -> None:
    """The next start ends it, or undoes it, as the ledger has it."""
    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit())
        made.workspaces.condemn(job.id)
        if is_committed:
            with made.ledger.write() as tx:
                control.remove(tx, job.id, at=made.clock.now(), actor="somebody", why="")
    with platform(tmp_path, OUTPUT) as again:
        there = [path.name for path in again.workspaces.folder.iterdir()]
        assert there == ([] if is_committed else [job.id])
        if not is_committed:
            assert again.output_of(job, "out") == "out\n"


def test_the_history_of_a_job(tmp_path: Path) -> None:
    """Every move in its order, by id or name; what never was is not found."""
    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit())
        found = made.views.history(LOCAL, job.name)
        assert [event.action for event in found] == ["create", "claim", "finish"]
        assert [event.actor for event in found] == ["TEST", "system", "system"]
        assert [event.at for event in found] == sorted(event.at for event in found)
        assert made.views.history(LOCAL, job.id) == found
        with pytest.raises(NotFoundError, match="no job has, or had, the id or name 'x'"):
            made.views.history(LOCAL, "x")
        # An instance has a history too, but it is no job.
        with pytest.raises(NotFoundError):
            made.views.history(LOCAL, made.store().instance_id)


def test_a_name_is_free_again_after_a_deletion(tmp_path: Path) -> None:
    """A job of the same name can be made; the id is another one."""
    with platform(tmp_path, OUTPUT) as made:
        job = made.until(made.submit(name="once"))
        delete(made, job)
        again = made.until(made.submit(name="once"))
        assert (again.name, again.id == job.id) == ("once", False)
        assert actions(made, again) == ["create", "claim", "finish"]
