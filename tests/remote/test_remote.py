"""An item at another platform: it runs there, and that platform's answer is its own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_adapter.model import Job
from dicom_adapter.v1 import jobs_pb2, platform_pb2
from tests.platform.harness import wait_for_file
from tests.remote.harness import Side, both


@dataclass
class Pair:
    """Both services, for all of these tests, and the folder of the files that let jobs end."""

    here: Side
    there: Side
    folder: Path

    def started(self, name: str, pipeline: str = "work") -> tuple[Job, Job]:
        """Submit a job here, and return it and its other self once that runs."""
        self.here.submit(pipeline, name)
        wait_for_file(self.folder / f"{name}.up")
        mine = self.here.until_state("processing", name=name)
        return mine, self.there.until_state("processing", name=name)

    def become(self, job: Job, state: str) -> tuple[Job, Job]:
        """Wait until a job and its other self are in a state, and nothing is handed over."""
        mine = self.here.until_state(state, name=job.name)
        its = self.there.until_state(state, name=job.name)
        self.here.until_nothing_handed()
        return mine, its

    @property
    def address(self) -> str:
        """Where the other platform is."""
        return self.here.made.service.settings.executors["far"].address


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Who hands over, and who works."""
    folder = tmp_path_factory.mktemp("remote")
    with both(folder) as (here, there):
        yield Pair(here, there, folder)


def cancel(side: Side, job: Job) -> None:
    """Cancel a job as a person does."""
    with side.client.errors():
        side.client.cancel(job.id, "because")


def test_a_job_runs_at_another_platform_and_its_outputs_come_back(pair: Pair) -> None:
    """Inputs in their order, arguments, priority, steps while it runs, log, outputs, provenance."""
    here, there = pair.here, pair.there
    data = here.submit("work", "whole", files=2)
    wait_for_file(pair.folder / "whole.up")
    mine = here.until(lambda job: job.steps[0].progress == 0.5, "whole")
    its = there.until_state("processing", name="whole")
    said = here.until_said(mine, "said\n")
    assert f"it is {its.name} there, by the id {its.id}" in said
    (pair.folder / "whole.go").touch()
    mine, its = pair.become(mine, "finished")
    assert [(step.state, step.progress) for step in mine.steps] == [("done", 1), ("done", 1)]
    assert mine.outputs == its.outputs
    assert {output.path for output in mine.outputs} > {"big", "job"}
    for output in mine.outputs:
        assert here.output(mine, output.path) == there.output(its, output.path)
    names = ("sub/001/000001.dcm", "sub/001/000002.dcm", "sub/002/000001.dcm")
    assert [here.output(mine, name) for name in names] == data
    assert here.log_of(mine).endswith("said\ndone\n")
    assert (its.pipeline, its.priority, its.ae_title) == ("work", mine.priority, "CT1")
    assert its.arguments == {"threshold": "3"}
    assert (mine.exit_code, mine.cancel_policy, mine.rules.executor) == (0, "request", "far")
    assert there.moves(its)[0] == ("", "in_queue", "adapter")
    assert mine.used is not None
    assert its.used is not None
    assert mine.used.cpu_seconds == its.used.cpu_seconds > 0


def test_a_record_names_the_other_platform_and_the_job_there(pair: Pair) -> None:
    """Which platform, which job, and which version of what pipeline made the outputs."""
    (pair.folder / "record.go").touch()
    mine, its = pair.become(pair.started("record")[0], "finished")
    request = jobs_pb2.StreamProvenanceRequest(job=mine.id)
    chunks = pair.here.client.jobs.StreamProvenance(request)
    record = json.loads(b"".join(chunk.data for chunk in chunks))
    assert record["remote"] == {
        "executor": "far",
        "address": pair.address,
        "pipeline": "work",
        "pipeline_version": its.pipeline_version,
        "job_id": its.id,
        "job_name": its.name,
    }


def test_a_job_that_fails_there_fails_here_with_its_reason(pair: Pair) -> None:
    """What it said there is quoted with the address; the history here has none of it."""
    pair.here.submit("fail", "bad")
    mine, its = pair.become(pair.here.until_state("failed", name="bad"), "failed")
    assert (mine.reason, mine.exit_code) == ("pipeline_error", 3)
    assert mine.error == f"at {pair.address}: {its.error}"
    assert "exit code 3; the log ends with: PATIENT" in mine.error
    history = pair.here.client.jobs.GetJobHistory(jobs_pb2.GetJobRequest(job=mine.id))
    assert "PATIENT" not in str(history)
    assert pair.here.log_of(mine).endswith("PATIENT\n")


def test_s117_s118_what_waits_there_is_cancelled_there(pair: Pair) -> None:
    """A cancellation reaches the queue of the other platform, and its answer is ours."""
    platform = pair.there.client.platform
    platform.PausePlatform(platform_pb2.PausePlatformRequest())
    pair.here.submit("work", "queued")
    its = pair.there.until_state("in_queue", name="queued")
    mine = pair.here.until_state("processing", name="queued")
    pair.here.until_said(mine, its.id)
    cancel(pair.here, mine)
    mine, its = pair.become(mine, "cancelled")
    assert (its.cancelled_from, its.attempts) == ("in_queue", 0)
    assert mine.cancelled_from == "processing"
    platform.ResumePlatform(platform_pb2.ResumePlatformRequest())


def test_s117_s118_what_runs_there_is_ended_there(pair: Pair) -> None:
    """The request goes out, the process there ends, and nothing of an output is left here."""
    mine, its = pair.started("ended")
    cancel(pair.here, mine)
    mine, its = pair.become(mine, "cancelled")
    assert pair.there.moves(its)[-2:] == [
        ("processing", "cancelling", "adapter"),
        ("cancelling", "cancelled", "system"),
    ]
    assert mine.outputs == ()


def test_s113_s118_t6_a_cancellation_that_comes_too_late_ends_finished(pair: Pair) -> None:
    """The other platform lets it end by itself: it is finished here too, with its outputs."""
    mine, its = pair.started("late", "late")
    cancel(pair.here, mine)
    pair.there.until_state("cancelling", name="late")
    (pair.folder / "late.go").touch()
    mine, its = pair.become(mine, "finished")
    assert mine.outputs == its.outputs != ()
    assert mine.cancelled_from == "processing"
    assert pair.here.moves(mine)[-2:] == [
        ("processing", "cancelling", "local"),
        ("cancelling", "finished", "system"),
    ]


def test_s118_what_somebody_cancels_there_is_cancelled_here(pair: Pair) -> None:
    """Nobody has asked for it here: the other platform's answer is final all the same."""
    mine, its = pair.started("there")
    cancel(pair.there, its)
    mine, _ = pair.become(mine, "cancelled")
    assert pair.here.moves(mine)[-2:] == [
        ("processing", "cancelling", "far"),
        ("cancelling", "cancelled", "system"),
    ]


def test_s101_a_rerun_runs_there_again(pair: Pair) -> None:
    """It is another job here and another one there, of the same definition."""
    first, _ = pair.started("once")
    (pair.folder / "once.go").touch()
    first, its_first = pair.become(first, "finished")
    pair.here.client.jobs.RerunJob(jobs_pb2.RerunJobRequest(job=first.id, name="again"))
    (pair.folder / "again.go").touch()
    again = pair.here.until_state("finished", name="again")
    its_again = pair.there.until_state("finished", name="again")
    assert (again.rerun_of, again.rules) == (first.name, first.rules)
    assert again.pipeline_version == first.pipeline_version
    assert its_again.pipeline_version == its_first.pipeline_version
    assert len({first.id, its_first.id, again.id, its_again.id}) == 4
    assert pair.here.output(again, "sub/002/000001.dcm") == pair.here.output(
        first, "sub/002/000001.dcm"
    )
