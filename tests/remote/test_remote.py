"""An item at another platform: it runs there, and that platform's answer is its own."""

import json
from pathlib import Path

from dicom_adapter.model import Job
from dicom_adapter.v1 import jobs_pb2, platform_pb2
from tests.platform.harness import wait_for_file
from tests.remote.harness import Side, both


def started(here: Side, there: Side, folder: Path, pipeline: str = "work") -> tuple[Job, Job]:
    """Submit a job here, and return it and its other self once that runs."""
    here.submit(pipeline)
    wait_for_file(folder / "up")
    return here.until_state("processing"), there.until_state("processing")


def cancel(side: Side, job: Job) -> None:
    """Cancel a job as a person does."""
    with side.client.errors():
        side.client.cancel(job.id, "because")


def test_a_job_runs_at_another_platform_and_its_outputs_come_back(tmp_path: Path) -> None:
    """Inputs in their order, arguments, priority, steps while it runs, log, outputs, provenance."""
    with both(tmp_path) as (here, there):
        data = here.submit(files=2)
        wait_for_file(tmp_path / "up")
        mine = here.until(lambda job: job.steps[0].progress == 0.5)
        its = there.until_state("processing")
        said = here.until_said(mine, "said\n")
        assert f"it is {its.name} there, by the id {its.id}" in said
        (tmp_path / "go").touch()
        mine, its = here.until_state("finished"), there.until_state("finished")
        here.until_nothing_handed()
        assert [(step.state, step.progress) for step in mine.steps] == [("done", 1), ("done", 1)]
        assert mine.outputs == its.outputs
        assert {output.path for output in mine.outputs} > {"big", "job"}
        for output in mine.outputs:
            assert here.output(mine, output.path) == there.output(its, output.path)
        names = ("sub/001/000001.dcm", "sub/001/000002.dcm", "sub/002/000001.dcm")
        assert [here.output(mine, name) for name in names] == data
        assert here.log_of(mine).endswith("said\ndone\n")
        assert (its.name, its.pipeline, its.priority, its.ae_title, its.arguments) == (
            *("study", "work", mine.priority, "CT1"),
            {"threshold": "3"},
        )
        assert (mine.exit_code, mine.cancel_policy, mine.rules.executor) == (0, "request", "far")
        assert mine.used is not None
        assert its.used is not None
        assert mine.used.cpu_seconds == its.used.cpu_seconds > 0
        request = jobs_pb2.StreamProvenanceRequest(job=mine.id)
        chunks = here.client.jobs.StreamProvenance(request)
        record = json.loads(b"".join(chunk.data for chunk in chunks))
        assert record["remote"] == {
            "executor": "far",
            "address": here.made.service.settings.executors["far"].address,
            "pipeline": "work",
            "pipeline_version": its.pipeline_version,
            "job_id": its.id,
            "job_name": its.name,
        }
        assert there.moves(its)[0] == ("", "in_queue", "adapter")


def test_a_job_that_fails_there_fails_here_with_its_reason(tmp_path: Path) -> None:
    """What it said there is quoted with the address; the history here has none of it."""
    with both(tmp_path) as (here, there):
        here.submit("fail")
        mine, its = here.until_state("failed"), there.until_state("failed")
        address = here.made.service.settings.executors["far"].address
        assert (mine.reason, mine.exit_code) == ("pipeline_error", 3)
        assert mine.error == f"at {address}: {its.error}"
        assert "exit code 3; the log ends with: PATIENT" in mine.error
        history = here.client.jobs.GetJobHistory(jobs_pb2.GetJobRequest(job=mine.id))
        assert "PATIENT" not in str(history)
        assert here.log_of(mine).endswith("PATIENT\n")
        here.until_nothing_handed()


def test_what_waits_there_is_cancelled_there(tmp_path: Path) -> None:
    """A cancellation reaches the queue of the other platform, and its answer is ours."""
    with both(tmp_path) as (here, there):
        there.client.platform.PausePlatform(platform_pb2.PausePlatformRequest())
        here.submit()
        its = there.until_state("in_queue")
        mine = here.until_state("processing")
        here.until_said(mine, its.id)
        cancel(here, mine)
        mine, its = here.until_state("cancelled"), there.until_state("cancelled")
        assert (its.cancelled_from, its.attempts) == ("in_queue", 0)
        assert mine.cancelled_from == "processing"
        here.until_nothing_handed()


def test_what_runs_there_is_ended_there(tmp_path: Path) -> None:
    """The request goes out, the process there ends, and nothing of an output is left here."""
    with both(tmp_path) as (here, there):
        mine, its = started(here, there, tmp_path)
        cancel(here, mine)
        mine, its = here.until_state("cancelled"), there.until_state("cancelled")
        assert there.moves(its)[-2:] == [
            ("processing", "cancelling", "adapter"),
            ("cancelling", "cancelled", "system"),
        ]
        assert mine.outputs == ()
        assert "its end was asked for" in here.log_of(mine)
        here.until_nothing_handed()


def test_a_cancellation_that_comes_too_late_ends_finished(tmp_path: Path) -> None:
    """The other platform lets it end by itself: it is finished here too, with its outputs."""
    with both(tmp_path) as (here, there):
        mine, its = started(here, there, tmp_path, "late")
        cancel(here, mine)
        there.until_state("cancelling")
        (tmp_path / "go").touch()
        mine, its = here.until_state("finished"), there.until_state("finished")
        assert mine.outputs == its.outputs != ()
        assert mine.cancelled_from == "processing"
        assert here.moves(mine)[-2:] == [
            ("processing", "cancelling", "local"),
            ("cancelling", "finished", "system"),
        ]


def test_what_somebody_cancels_there_is_cancelled_here(tmp_path: Path) -> None:
    """Nobody has asked for it here: the other platform's answer is final all the same."""
    with both(tmp_path) as (here, there):
        mine, its = started(here, there, tmp_path)
        cancel(there, its)
        mine = here.until_state("cancelled")
        assert here.moves(mine)[-2:] == [
            ("processing", "cancelling", "far"),
            ("cancelling", "cancelled", "system"),
        ]
        here.until_nothing_handed()
