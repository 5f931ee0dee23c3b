"""A token of one project: its jobs, and no others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.errors import NotFoundError, PermissionDeniedError
from dicom_adapter.ledger import jobs
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.ledger.turns import Kind, Limits
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import LOCAL, Caller, Job
from tests.platform.harness import SOMEBODY, Platform, platform, sh

INSIDE = Caller("ann", Role.ADMIN, "trial")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Platform]:
    """A platform with a pipeline that ends at once."""
    with platform(tmp_path, sh("echo done > $DICOM_ADAPTER_OUTPUT/x")) as found:
        yield found


def test_s95_a_job_is_in_one_project(made: Platform) -> None:
    """That which is asked for, else the token's own, else the default one; a rerun stays there."""
    default = made.submit()
    asked = made.submit(project="trial")
    own = made.operations.submit(INSIDE, made.request())
    again = made.operations.rerun(SOMEBODY, asked.name, latest=False)
    assert [job.project for job in (default, asked, own, again)] == [
        "default",
        "trial",
        "trial",
        "trial",
    ]
    with pytest.raises(NotFoundError, match="no project 'x'; there are default, trial"):
        made.submit(project="x")
    with pytest.raises(PermissionDeniedError, match="the project trial alone, not into 'default'"):
        made.operations.submit(INSIDE, made.request(project="default"))


def test_the_same_request_in_another_project_is_another(made: Platform) -> None:
    """It is no repetition, and nobody is told a job of elsewhere."""
    request = made.request()
    first = made.operations.submit(LOCAL, request)
    assert made.operations.submit(LOCAL, request).id == first.id
    with pytest.raises(Exception, match="use an id of its own"):
        made.operations.submit(INSIDE, request)


def everything(made: Platform, caller: Caller, job: Job) -> None:
    """Do to a job whatever one can."""
    for look in (made.views.get, made.views.history):
        with pytest.raises(NotFoundError, match="no job has"):
            look(caller, job.id)
    with pytest.raises(NotFoundError):
        list(made.views.logs(caller, job.name, follow=False, active=lambda: True))
    with pytest.raises(NotFoundError):
        list(made.views.provenance(caller, job.id))
    with pytest.raises(NotFoundError):
        list(made.views.watch(caller, job.id, 0, lambda: True))
    with pytest.raises(NotFoundError):
        made.control.cancel(caller, job.id)
    with pytest.raises(NotFoundError):
        made.control.retry(caller, job.id, confirm=True)
    with pytest.raises(NotFoundError):
        made.control.invalidate(caller, job.id, why="x")
    with pytest.raises(NotFoundError):
        made.control.delete(caller, job.id)
    with pytest.raises(NotFoundError):
        made.operations.rerun(caller, job.id, latest=False)


def test_what_is_elsewhere_is_not_there(made: Platform) -> None:
    """By id and name, for whatever is asked; and it stays as it was."""
    job = made.until(made.submit())
    everything(made, INSIDE, job)
    assert made.views.get(LOCAL, job.id) == job
    made.control.delete(LOCAL, job.id)
    with pytest.raises(NotFoundError):
        made.views.history(INSIDE, job.id)
    assert made.views.history(LOCAL, job.id)[-1].action == "delete"


def test_r8_lists_and_watching_show_the_project_alone(made: Platform) -> None:
    """Also of jobs that are deleted."""
    mine = made.until(made.submit(project="trial"))
    made.until(made.submit())

    def listed(caller: Caller, project: str = "") -> list[str]:
        page = made.views.listed(caller, JobFilter(project=project), 0, "")
        return [job.project for job in page.jobs]

    assert listed(LOCAL) == ["default", "trial"]
    assert listed(LOCAL, "trial") == listed(INSIDE) == listed(INSIDE, "trial") == ["trial"]
    with pytest.raises(PermissionDeniedError, match="into the project trial alone"):
        listed(INSIDE, "default")
    made.control.delete(INSIDE, mine.id)
    last = made.submit(project="trial")
    seen = []
    for change in made.views.watch(INSIDE, "", 1, lambda: True):
        seen.append((change.job_id, change.move.action if change.move else ""))
        if change.job_id == last.id:
            break
    assert {job_id for job_id, _ in seen} == {mine.id, last.id}
    assert (mine.id, "delete") in seen


def test_limits_of_a_project(tmp_path: Path) -> None:
    """So many of its jobs run, wait and start a day, of whatever pipeline; others pass by."""
    gate = "until [ -e ../../go ]; do sleep 0.01; done"
    with platform(tmp_path, sh(gate), sh(gate, "other")) as made:
        trial = Kind("project", "trial")
        made.queue.rules = type(made.queue.rules)(
            made.queue.rules.total, 4, made.queue.rules.ageing, {trial: Limits(1, 1, 2)}
        )
        runs = made.until(made.submit(project="trial"), "processing")
        waits = made.submit(project="trial", pipeline="other")
        told = made.views.get(LOCAL, waits.id).waiting
        assert told is not None
        assert told.why == "limits.running of the project trial is reached: 1 run"
        with pytest.raises(Exception, match=r"limits\.waiting of the project trial is reached: 1"):
            made.submit(project="trial")
        made.until(made.submit(pipeline="other"), "processing")
        (tmp_path / "platform" / "jobs" / "go").touch()
        made.until(runs)
        made.until(waits)
        third = made.submit(project="trial")
        told = made.views.get(LOCAL, third.id).waiting
        assert told is not None
        assert told.why.startswith("limits.daily of the project trial is reached: 2 started")
        with made.ledger.read() as tx:
            assert jobs.counts(tx)["in_queue"] == 1
