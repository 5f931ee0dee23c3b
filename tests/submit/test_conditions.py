"""What a pipeline requires is checked before a job is made; the rest goes as was decided."""

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_adapter.model import Job, Submission, SubmissionState
from dicom_adapter.phantom import PhantomSeries, write_series
from tests.processors.conftest import cli
from tests.processors.tools import CommandLine, decide, history, kept, submitted
from tests.submit.test_two_processes import ADAPTER, PLATFORM, adapter, free_port, jobs_of, platform
from tests.support import (
    SUCCESS,
    ManualClock,
    Running,
    files_in,
    make_instance,
    running,
    send,
)

__all__ = ["cli"]

MR = "1.2.840.10008.5.1.4.1.1.4"
TEXT = """
dicom: {{host: 127.0.0.1, port: 0}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
pipelines:
  lung:
    command: ['true']
    resources: {{memory: 1MiB}}
    {requires}
ae_titles:
  TEST: {{settings: {{pipeline-lung: lung, on_mismatch: {on_mismatch}, group_by: {group_by}}}}}
"""
CT = "requires: {modality: [CT]}"


def config(requires: str = CT, on_mismatch: str = "park", group_by: str = "study") -> str:
    """Return a configuration of one pipeline."""
    return TEXT.format(requires=requires, on_mismatch=on_mismatch, group_by=group_by)


def image(series: str = "1.2.3.4") -> Dataset:
    """Return an MR image."""
    made = make_instance(series=series, Modality="MR", SOPClassUID=MR)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    return made


def hand_over(made: Running, clock: ManualClock, sent: list[Dataset]) -> None:
    """Send instances, and let their group be due."""
    assert send(made.port, sent) == [SUCCESS] * len(sent)
    made.grouped(len(sent))
    clock.advance(5)


def settled(made: Running, *states: str, count: int = 1) -> list[Submission]:
    """Wait until so many submissions are in one of these states, and return them."""

    def look() -> list[Submission]:
        found = [one.submission for one in submitted(made) if one.submission.state in states]
        return found if len(found) >= count else []

    return made.wait_for(look)


def spool(folder: Path) -> list[Path]:
    """Return the instances in the spool."""
    return files_in(folder / "data" / "spool" / "instances")


def test_s24_a_pipeline_without_conditions_takes_any_series(tmp_path: Path) -> None:
    """Whatever is sent becomes a job, of several patients too."""
    clock = ManualClock()
    with running(tmp_path, config("", group_by="association"), clock) as made:
        hand_over(made, clock, [image(), make_instance(series="1.9", patient="P2", study="1.8")])
        (job,) = made.ended_jobs(1)
    assert (job.state, job.instances) == ("finished", 2)


def test_s25_what_is_otherwise_is_parked_before_it_is_registered(
    tmp_path: Path, cli: CommandLine
) -> None:
    """The submission waits for a person with its files, and names condition, value and series."""
    clock = ManualClock()
    with running(tmp_path, config(), clock) as made:
        hand_over(made, clock, [make_instance(), image(series="1.2.99")])
        (parked,) = settled(made, "parked")
        assert parked.error == (
            "is not what the pipeline 'lung' requires: series 1.2.99: modality is MR, required is "
            "CT"
        )
        assert made.jobs() == []
        assert len(spool(tmp_path)) == 2
        (row,) = cli(made, "submissions", "list", "--json").rows
        assert (row["state"], row["error"]) == ("parked", parked.error)
        decide(made, "DiscardSubmissions", parked.id)
        made.wait_for(lambda: not kept(made))
    assert made.jobs() == []


def test_s25_what_meets_the_conditions_is_made_a_job(tmp_path: Path) -> None:
    """A series of twenty CT images is what a pipeline for such series asks for."""
    requires = "requires: {modality: [CT], min_instances: 20, slice_spacing: {max: 5}}"
    clock = ManualClock()
    series = PhantomSeries(slices=20, rows=16, columns=16, slice_spacing=5.0)
    paths = write_series(tmp_path / "phantom", series)
    with running(tmp_path, config(requires), clock) as made:
        hand_over(made, clock, [dcmread(path) for path in paths])
        (job,) = made.ended_jobs(1)
        hand_over(made, clock, [make_instance()])
        (parked,) = settled(made, "parked")
    assert (job.state, job.instances) == ("finished", 20)
    assert parked.error.endswith(
        "series 1.2.3.4: number of instances is 1, required is at least 20; series 1.2.3.4: slice "
        "spacing is of a single slice, required is at most 5 mm"
    )


def test_a_retry_checks_again_what_is_required_by_then(tmp_path: Path, cli: CommandLine) -> None:
    """A person who has changed the pipeline has what was parked checked again, and run."""
    clock = ManualClock()
    with running(tmp_path, config(), clock) as made:
        hand_over(made, clock, [image()])
        (parked,) = settled(made, "parked")
        decide(made, "RetrySubmissions", parked.id)
        made.wait_for(lambda: [e for e in history(made, parked.id) if e.action == "park"][1:])
        assert made.jobs() == []
        (tmp_path / "dicom-adapter.yaml").write_text(config("requires: {modality: [MR]}"), "utf-8")
        assert cli(made, "reload").code == 0
        decide(made, "RetrySubmissions", parked.id)
        (job,) = made.ended_jobs(1)
    assert (job.state, job.instances) == ("finished", 1)


def test_s25_what_is_otherwise_can_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `on_mismatch: skip` nothing is made of it, which is recorded, and its files go."""
    clock = ManualClock()
    with running(tmp_path, config(on_mismatch="skip"), clock) as made:
        hand_over(made, clock, [image()])
        (skipped,) = settled(made, "skipped")
        made.wait_for(lambda: not kept(made))
        *_, move = history(made, skipped.id)
        attention = made.service.status().attention
        hand_over(made, clock, [make_instance(study="1.5")])
        (job,) = made.ended_jobs(1)
    assert skipped.error == (
        "is not what the pipeline 'lung' requires: series 1.2.3.4: modality is MR, required is CT"
    )
    assert (move.action, move.to_state, move.reason) == ("skip", "skipped", skipped.error)
    assert skipped.settled_at is not None
    assert attention == ()
    assert job.state == "finished"
    told = capsys.readouterr()
    (line,) = [line for line in (told.out + told.err).splitlines() if "submission.skipped" in line]
    assert "modality" in line
    # The log says why; which series it was stands in the ledger alone.
    assert "1.2.3.4" not in line


def test_a_job_after_a_skipped_one_takes_the_place_of_none(tmp_path: Path) -> None:
    """What comes late makes a job of the whole study, once that is what is required."""
    clock = ManualClock()
    text = config("requires: {min_instances: 2}", "skip").replace(
        "{reserve", "{retain: 1h, reserve"
    )
    with running(tmp_path, text, clock) as made:
        hand_over(made, clock, [make_instance()])
        settled(made, "skipped")
        hand_over(made, clock, [make_instance()])
        (job,) = made.ended_jobs(1)
    assert (job.state, job.instances, job.supersedes) == ("finished", 2, None)


def test_s25_what_is_otherwise_can_be_a_job_that_failed(tmp_path: Path, cli: CommandLine) -> None:
    """With `on_mismatch: fail` the platform has a job that never ran and says why."""
    clock = ManualClock()
    with running(tmp_path, config(on_mismatch="fail"), clock) as made:
        hand_over(made, clock, [image()])
        (accepted,) = settled(made, "accepted")
        (job,) = made.ended_jobs(1)
        assert job.id == accepted.job_id
        assert (job.state, job.reason, job.attempts) == ("failed", "input_error", 0)
        assert job.error == (
            "its inputs are not what the pipeline requires: series 1.2.3.4: modality is MR, "
            "required is CT"
        )
        assert (job.started_at, job.finished_at) == (None, job.created_at)
        moves = [(m.action, m.from_state, m.to_state, m.reason) for m in history(made, job.id)]
        assert moves == [
            ("create", "", "in_queue", ""),
            ("expire", "in_queue", "failed", "input_error"),
        ]
        for words in (["jobs", "retry", job.id], ["jobs", "rerun", job.id]):
            refused = cli(made, *words)
            assert (refused.code, "--confirm" in refused.err) == (1, True)
        assert [one.state for one in made.jobs()] == ["failed"]
        assert cli(made, "jobs", "retry", job.id, "--confirm").code == 0
        made.wait_for(lambda: made.jobs()[0].state == "finished")
        # What ran is a job like others.
        assert cli(made, "jobs", "rerun", job.id).code == 0


@pytest.mark.parametrize("on_mismatch", ["park", "skip", "fail"])
def test_each_way_survives_a_restart(tmp_path: Path, on_mismatch: str) -> None:
    """What was asked for is in the ledger: a service that ends before it submits loses nothing."""
    clock = ManualClock()
    text = config(on_mismatch=on_mismatch)
    with running(tmp_path, text, clock) as made:
        outbox = made.service._outbox  # noqa: SLF001 - it ends before it submits, as by a crash
        assert outbox is not None
        outbox.stop(10)
        hand_over(made, clock, [image()])
        (waiting,) = settled(made, "pending")
        assert waiting.on_mismatch == on_mismatch
    with running(tmp_path, text, clock) as made:
        state = {"park": "parked", "skip": "skipped", "fail": "accepted"}[on_mismatch]
        (found,) = settled(made, state)
    assert found.id == waiting.id


def test_a_job_whose_answer_was_lost_is_found_though_more_is_required_now(
    tmp_path: Path, cli: CommandLine
) -> None:
    """Where the platform has made the job, nothing is parked: the submission is accepted."""
    clock = ManualClock()
    with running(tmp_path, config(""), clock) as made:
        hand_over(made, clock, [image()])
        made.ended_jobs(1)
        (accepted,) = settled(made, "accepted")
        with made.service.ledger.write() as tx:
            tx.exec_driver_sql(
                "UPDATE submissions SET state = 'parked', settled_at = NULL, job_id = NULL"
            )
        (tmp_path / "dicom-adapter.yaml").write_text(config(), "utf-8")
        assert cli(made, "reload").code == 0
        decide(made, "RetrySubmissions", accepted.id)
        settled(made, "accepted", "parked")
        (found,) = [one.submission for one in submitted(made)]
    assert (found.state, found.job_id) == (SubmissionState.ACCEPTED, accepted.job_id)


def test_a_pipeline_is_shown_with_what_it_requires(tmp_path: Path, cli: CommandLine) -> None:
    """Programs have all of it, a person a line for each condition that is declared."""
    requires = "requires: {modality: [CT, PT], min_instances: 1000, tags: ['KVP>=100']}"
    with running(tmp_path, config(requires)) as made:
        (row,) = cli(made, "pipelines", "list", "--json").rows
        (shown,) = cli(made, "pipelines", "show", "lung", "--json").rows
        table = cli(made, "pipelines", "show", "lung").out
    assert row == shown
    assert shown["requires"]["modality"] == ["CT", "PT"]
    assert shown["requires"]["instances"] == {"min": 1000, "max": None}
    assert shown["requires"]["slice_spacing"] is None
    assert shown["requires"]["tags"] == ["KVP >= 100"]
    lines = [line.split(maxsplit=1) for line in table.splitlines()]
    assert ["requires.modality.1", "CT"] in lines
    assert ["requires.instances.min", "1000"] in lines
    assert ["requires.tags.1", "KVP >= 100"] in lines
    with running(tmp_path, config("")) as made:
        (shown,) = cli(made, "pipelines", "show", "lung", "--json").rows
    assert shown["requires"] is None


def test_s25_a_series_each_on_its_own(tmp_path: Path) -> None:
    """Grouped by series, one that is otherwise keeps no other from its job."""
    clock = ManualClock()
    with running(tmp_path, config(group_by="series"), clock) as made:
        hand_over(made, clock, [make_instance(), image(series="1.2.99")])
        made.ended_jobs(1)
        (parked,) = settled(made, "parked")
        jobs = made.jobs()
    assert [job.items[0].inputs[0].series for job in jobs] == ["1.2.3.4"]
    assert "series 1.2.99: " in parked.error


def test_series_of_several_patients_are_refused_where_conditions_are_declared(
    tmp_path: Path,
) -> None:
    """Nobody's ID is told: only that there are two."""
    clock = ManualClock()
    with running(tmp_path, config("requires: {}", group_by="association"), clock) as made:
        hand_over(
            made, clock, [make_instance(), make_instance(series="1.9", study="1.8", patient="P2")]
        )
        (parked,) = settled(made, "parked")
    assert parked.error.endswith(
        "series 1.9: patient is another than that of series 1.2.3.4, required is one for all series"
    )


def test_a_file_that_cannot_be_understood_is_told_to_people(tmp_path: Path) -> None:
    """Where nobody can tell whether it is what is required, the submission is parked."""
    clock = ManualClock()
    with running(tmp_path, config(on_mismatch="skip"), clock) as made:
        assert send(made.port, [make_instance()]) == [SUCCESS]
        made.grouped(1)
        spool(tmp_path)[0].write_bytes(b"\0" * 128 + b"nothing of the kind")
        clock.advance(5)
        (parked,) = settled(made, "parked")
    assert "cannot be read (InvalidDicomError)" in parked.error


@pytest.mark.parametrize(
    ("on_mismatch", "state"), [("park", "parked"), ("skip", "skipped"), ("fail", "accepted")]
)
def test_s25_a_platform_elsewhere_says_what_its_pipelines_require(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_mismatch: str, state: str
) -> None:
    """The adapter asks it, and what is parked or skipped is not even uploaded."""
    monkeypatch.setattr(
        "tests.submit.test_two_processes.ADAPTER",
        ADAPTER.replace("pipeline-copy: copy", f"pipeline-copy: copy, on_mismatch: {on_mismatch}"),
    )
    port, clock = free_port(), ManualClock()
    text = PLATFORM.replace("    command", "    requires: {modality: [CT]}\n    command")
    with platform(tmp_path, port, text), adapter(tmp_path, port, clock) as near:
        hand_over(near, clock, [image()])
        (found,) = settled(near, state)
        uploads = list((tmp_path / "platform" / "data" / "platform" / "uploads").iterdir())
        assert len(uploads) == (1 if on_mismatch == "fail" else 0)
    jobs = jobs_of(tmp_path)
    said = "series 1.2.3.4: modality is MR, required is CT"
    if on_mismatch == "fail":
        assert [_told(job) for job in jobs] == [("failed", "input_error", True)]
        assert said in jobs[0].error
    else:
        assert jobs == []
        assert said in found.error


def _told(job: Job) -> tuple[str, str, bool]:
    return job.state, job.reason, job.is_unfit
