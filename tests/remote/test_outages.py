"""The other platform, or the way to it, is away: nothing handed over is lost, or done twice."""

import re
from pathlib import Path

import pytest

from dicom_adapter.model import Job
from dicom_adapter.platform import executor
from dicom_adapter.v1 import jobs_pb2, platform_pb2
from tests.platform.harness import wait_for_file
from tests.remote.harness import Side, both, far, near, port_of, wire

AWAY = "tried again until it succeeds"


def only_job(there: Side) -> Job:
    """Return the one job that was ever made there."""
    (job,) = there.made.jobs()
    return job


def test_it_is_waited_for_where_it_is_away_from_the_begin(tmp_path: Path) -> None:
    """The job stays processing, its log says why, and it runs once the way is free."""
    (tmp_path / "study.go").touch()
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        way.cut()
        here.submit()
        mine = here.until_state("processing")
        assert re.search(
            rf"{AWAY}: 127.0.0.1:{way.port}: .*UNAVAILABLE", here.until_said(mine, AWAY)
        )
        assert not there.made.jobs()
        way.mend()
        assert here.until_state("finished").attempts == 1
        assert only_job(there).state == "finished"


def test_r12_it_ends_while_the_way_is_cut(tmp_path: Path) -> None:
    """Away in the middle, and its end as well: found when the way is mended, each log line once."""
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        here.submit()
        wait_for_file(tmp_path / "study.up")
        mine = here.until_state("processing")
        here.until_said(mine, "said\n")
        way.cut()
        here.until_said(mine, AWAY)
        (tmp_path / "study.go").touch()
        its = there.until_state("finished")
        assert here.until_state("processing").state == "processing"
        way.mend()
        mine = here.until_state("finished")
        assert mine.outputs == its.outputs
        said = here.log_of(mine)
        assert (said.count("said\n"), said.count("done\n")) == (1, 1)
        assert "it answers again" in said
        assert only_job(there).id == its.id


def test_the_way_breaks_while_an_output_is_fetched(tmp_path: Path) -> None:
    """It is fetched again from its begin, and is whole."""
    (tmp_path / "study.go").touch()
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        way.budget = 1_000_000
        here.submit()
        mine = here.until_state("finished")
        assert way.breaks == 1
        assert here.output(mine, "big") == bytes(3_000_000)
        assert mine.outputs == only_job(there).outputs


def test_a_stop_here_leaves_it_running_there(tmp_path: Path) -> None:
    """The next start takes on the job there: its work is not done twice."""
    with far(tmp_path) as there:
        with near(tmp_path, port_of(there)) as here:
            here.submit()
            wait_for_file(tmp_path / "study.up")
            here.until_said(here.until_state("processing"), "said\n")
        with near(tmp_path, port_of(there)) as here:
            here.until(lambda job: job.attempts == 2)
            (tmp_path / "study.go").touch()
            mine = here.until_state("finished")
            assert only_job(there).attempts == 1
            assert "--- attempt 2 ---" in here.log_of(mine)
            here.until_nothing_handed()


def test_a_job_that_times_out_here_is_ended_there_once_that_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails here in time; the cancellation request goes out as soon as there is a way."""
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.2)
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        here.submit("short")
        wait_for_file(tmp_path / "study.up")
        here.until_said(here.until_state("processing"), "said\n")
        way.cut()
        mine = here.until_state("failed")
        assert (mine.reason, there.until_state("processing").pipeline) == ("run_timeout", "late")
        assert here.handed() == 1
        way.mend()
        there.until_state("cancelling")
        (tmp_path / "study.go").touch()
        there.until_state("finished")
        here.until_nothing_handed()
        assert here.until_state("failed").id == mine.id


def test_what_was_never_handed_over_is_cancelled_at_once(tmp_path: Path) -> None:
    """Nobody can answer for it: while the other platform is away it is cancelled here."""
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        way.cut()
        here.submit()
        mine = here.until_state("processing")
        here.until_said(mine, AWAY)
        here.client.cancel(mine.id, "because")
        here.until_state("cancelled")
        way.mend()
        here.until_nothing_handed()
        assert not there.made.jobs()


def test_a_full_queue_there_is_waited_for(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED is no refusal: it is tried again until there is room."""
    with both(tmp_path) as (here, there):
        there.client.platform.PausePlatform(platform_pb2.PausePlatformRequest())
        there.submit("few", "first")
        here.submit("few", "second")
        said = here.until_said(here.until_state("processing"), AWAY)
        assert "limits.waiting of the pipeline few" in said
        (tmp_path / "first.go").touch()
        (tmp_path / "second.go").touch()
        there.client.platform.ResumePlatform(platform_pb2.ResumePlatformRequest())
        here.until_state("finished")


def test_a_job_that_is_deleted_between_two_attempts_is_ended_there(tmp_path: Path) -> None:
    """Put back by a stop, cancelled and deleted: what still runs there is asked to end."""
    with far(tmp_path) as there:
        with near(tmp_path, port_of(there)) as here:
            here.submit()
            wait_for_file(tmp_path / "study.up")
            here.until_said(here.until_state("processing"), "said\n")
            here.client.platform.PausePlatform(platform_pb2.PausePlatformRequest())
        with near(tmp_path, port_of(there)) as here:
            mine = here.until_state("in_queue")
            there.until_state("processing")
            here.client.cancel(mine.id, "because")
            here.client.jobs.DeleteJob(jobs_pb2.DeleteJobRequest(job=mine.id))
            there.until_state("cancelled")
            here.until_nothing_handed()
