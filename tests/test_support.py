"""The tests' own tools do what tests rely on."""

from pathlib import Path

from tests.support import SUCCESS, ManualClock, make_instance, running, send


def test_a_study_becomes_a_job_on_a_clock_that_the_test_moves(tmp_path: Path) -> None:
    """What is sent over the wire becomes a finished job once the clock has passed the timeout."""
    clock = ManualClock()
    with running(tmp_path, clock=clock) as adapter:
        assert send(adapter.port, [make_instance(number=n) for n in (1, 2)]) == [SUCCESS] * 2
        adapter.grouped(2)
        clock.advance(5)
        (job,) = adapter.ended_jobs(1)
    assert (job.state, job.instances) == ("finished", 2)
    assert [output.path for output in job.outputs] == ["001/000001.dcm", "001/000002.dcm"]
