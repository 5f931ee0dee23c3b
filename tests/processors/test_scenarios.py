"""The mission's scenarios: over the real wire, with the shipped configurations, on our clock."""

from itertools import chain
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_adapter.phantom import PhantomSeries, write_series
from tests.processors.tools import ROOT, shipped, submitted, wait_submitted
from tests.support import SUCCESS, ManualClock, make_instance, running, send

SCENARIO_1 = ROOT / "config/scenario-1.yaml"
SCENARIO_2 = ROOT / "config/scenario-2.yaml"


def study(folder: Path, number: int, patient: str = "X", images: int = 2) -> list[Dataset]:
    """Return the images of a study of a patient."""
    series = PhantomSeries(
        slices=images,
        rows=32,
        columns=32,
        slice_spacing=20.0,
        patient_id=patient,
        study_instance_uid=f"1.2.826.{number}",
        series_instance_uid=f"1.2.826.{number}.1",
    )
    return [dcmread(path) for path in write_series(folder / f"study-{number}", series)]


def test_s79_s80_scenario_1_makes_three_jobs_of_five_studies(tmp_path: Path) -> None:
    """Five studies of one patient, each in its own association within 60 s: three jobs of five."""
    clock = ManualClock()
    with running(tmp_path, shipped(SCENARIO_1), clock) as adapter:
        for number in range(1, 6):
            images = study(tmp_path, number)
            assert send(adapter.port, images, called="CHEST") == [SUCCESS] * 2
            (group,) = adapter.grouped(2 * number)
            clock.advance(12)
        assert submitted(adapter) == []
        clock.advance(48)
        jobs = adapter.ended_jobs(3)
        found = submitted(adapter)
        assert adapter.groups() == []
    assert group.key == "X\\DICOM-ADAPTER"
    assert [job.pipeline for job in jobs] == ["lung", "heart", "breast"]
    assert [(job.state, job.instances) for job in jobs] == [("finished", 10)] * 3
    assert all(len({i.study for item in job.items for i in item.inputs}) == 5 for job in jobs)
    assert found[0].uids == found[1].uids == found[2].uids
    assert all(job.outputs for job in jobs)


def test_s78_n_pipelines_make_n_jobs_of_each_group(tmp_path: Path) -> None:
    """Two patients at scenario 1's AE title are two groups, and each makes three jobs."""
    clock = ManualClock()
    with running(tmp_path, shipped(SCENARIO_1, idle=True), clock) as adapter:
        for number, patient in enumerate("XY", start=1):
            send(adapter.port, study(tmp_path, number, patient), called="CHEST")
        adapter.grouped(4)
        clock.advance(60)
        found = wait_submitted(adapter, 6)
        jobs = adapter.ended_jobs(6)
    assert [s.submission.pipeline for s in found] == ["lung", "heart", "breast"] * 2
    assert [s.submission.name[:10] for s in found[:3]] == ["chest-lung", "chest-hear", "chest-brea"]
    assert len({job.name for job in jobs}) == 6


def test_s77_the_part_behind_the_dash_is_free(tmp_path: Path) -> None:
    """Two settings may name one pipeline: each makes a job, with a name of its own."""
    clock = ManualClock()
    text = shipped(SCENARIO_2, idle=True).replace(
        "pipeline-breast: breast", "pipeline-breast: breast\n      pipeline-again: breast"
    )
    with running(tmp_path, text, clock) as adapter:
        send(adapter.port, [make_instance()], called="BREAST")
        adapter.grouped(1)
        clock.advance(5)
        jobs = adapter.ended_jobs(2)
    assert [job.pipeline for job in jobs] == ["breast", "breast"]
    assert jobs[0].name != jobs[1].name


def test_s82_scenario_2_makes_a_job_of_each_study(tmp_path: Path) -> None:
    """Three studies in one association, and nothing more: after 5 s three jobs, one per study."""
    clock = ManualClock()
    studies = [study(tmp_path, number) for number in (1, 2, 3)]
    with running(tmp_path, shipped(SCENARIO_2), clock) as adapter:
        assert send(adapter.port, [*chain(*studies)], called="BREAST") == [SUCCESS] * 6
        groups = adapter.grouped(6)
        clock.advance(5)
        jobs = adapter.ended_jobs(3)
        found = submitted(adapter)
    assert len(groups) == 3
    assert [job.pipeline for job in jobs] == ["breast"] * 3
    assert [(job.state, job.instances) for job in jobs] == [("finished", 2)] * 3
    assert [s.uids for s in found] == [
        sorted(str(image.SOPInstanceUID) for image in images) for images in studies
    ]


def test_s83_four_associations_of_one_study_make_one_job(tmp_path: Path) -> None:
    """One study, four instances in four associations, gaps of 4, 3 and 1 s: one job of four."""
    clock = ManualClock()
    images = study(tmp_path, 1, images=4)
    with running(tmp_path, shipped(SCENARIO_2), clock) as adapter:
        for gap, (number, image) in zip((4, 3, 1, 5), enumerate(images, start=1), strict=True):
            assert send(adapter.port, [image], called="BREAST") == [SUCCESS]
            (group,) = adapter.grouped(number)
            clock.advance(gap)
        (job,) = adapter.ended_jobs(1)
        clock.advance(3600)
        assert adapter.groups() == []
        assert len(submitted(adapter)) == 1
    assert (group.last_instance_at - group.opened_at).total_seconds() == 8
    assert (group.ready_at - group.opened_at).total_seconds() == 13
    assert (job.state, job.instances) == ("finished", 4)
