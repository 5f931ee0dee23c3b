"""How far an attempt is: one phase after the other, and none where nothing runs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dicom_adapter.model import LOCAL, Job, JobInput, JobItem, JobOutput
from dicom_adapter.platform.workspace import Workspace
from tests.platform.harness import Platform, platform, sh
from tests.platform.test_cancel import GATE, cancel, running


def stand_of(made: Platform, job_id: str) -> tuple[str, str | None]:
    """Return a job's state, and how far its attempt is."""
    job = made.views.get(LOCAL, job_id)
    return job.state, job.phase


def phase_of(made: Platform, job_id: str) -> str | None:
    """Return how far a job's attempt is."""
    return made.views.get(LOCAL, job_id).phase


def test_s6_the_phases_of_an_attempt_are_told_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs are prepared, the command executes, the outputs are finalized; then it is over.

    Until then the job is processing, and in no other state.
    """
    seen: list[tuple[str, str, str | None]] = []
    prepare, collect = Workspace.prepare, Workspace.collect_outputs

    def preparing(
        workspace: Workspace, job: Job, item: JobItem, inputs: Sequence[JobInput]
    ) -> None:
        seen.append(("prepare", *stand_of(made, job.id)))
        prepare(workspace, job, item, inputs)

    def collecting(workspace: Workspace) -> tuple[JobOutput, ...]:
        seen.append(("collect", *stand_of(made, workspace.folder.name)))
        return collect(workspace)

    monkeypatch.setattr(Workspace, "prepare", preparing)
    monkeypatch.setattr(Workspace, "collect_outputs", collecting)
    with platform(tmp_path, sh(GATE)) as made:
        job = running(made)
        seen.append(("run", *stand_of(made, job.id)))
        (made.workspaces.folder / "go").touch()
        ended = made.until(job)
    assert seen == [
        ("prepare", "processing", "preparing"),
        ("run", "processing", "executing"),
        ("collect", "processing", "finalizing"),
    ]
    assert (job.phase, ended.state, ended.phase) == (None, "finished", None)


@pytest.mark.parametrize("end", ["drained", "cancelled", "failed"])
def test_a_job_that_nothing_runs_has_no_phase(tmp_path: Path, end: str) -> None:
    """However an attempt ends, and also when it is to begin anew."""
    with platform(tmp_path, sh(f"{GATE}; exit 1")) as made:
        job = running(made)
        assert phase_of(made, job.id) == "executing"
        if end == "drained":
            made.scheduler.stop(10)
        elif end == "cancelled":
            cancel(made, job)
        else:
            (made.workspaces.folder / "go").touch()
        assert made.until(job, "in_queue", "cancelled", "failed").phase is None
