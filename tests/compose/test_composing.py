"""Jobs of what is kept: chosen, previewed and composed, over the API of a running service."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from dicom_adapter.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    WrongStateError,
)
from dicom_adapter.ledger.index_schema import indexed_instances
from dicom_adapter.lifecycle import JobState
from dicom_adapter.v1 import composition_pb2 as messages
from dicom_adapter.v1 import jobs_pb2
from tests.compose.conftest import Cache, part, series_of
from tests.support import make_instance


def inputs(cache: Cache, job: jobs_pb2.Job) -> list[dict[str, Any]]:
    """Return the inputs that the pipeline of a job was told, once it has finished."""
    ended = {one.id: one for one in cache.here.ended_jobs(len(cache.here.jobs()))}[job.id]
    assert ended.state is JobState.FINISHED, ended.error
    found = cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job.id))
    told: list[dict[str, Any]] = json.loads((Path(found.output_folder) / "job.json").read_text())[
        "inputs"
    ]
    return told


def uids(told: dict[str, Any]) -> list[str]:
    """Return the SOP Instance UIDs of an input, in its order."""
    return [file["sop_instance_uid"] for file in told["files"]]


def test_s1_s2_pipeline_and_series_make_a_job(cache: Cache) -> None:
    """It has its id with the answer, and the history says who wanted it."""
    sent = series_of("1.2.3.1", [1, 2, 3])
    cache.keep(sent)
    job = cache.compose(part("1.2.3.1"))
    (told,) = inputs(cache, job)
    assert job.id
    assert job.ae_title == "CACHE"
    assert told["study"] == "1.2.3"
    assert told["series"] == "1.2.3.1"
    assert told["range"] == "auto"
    assert uids(told) == [one.SOPInstanceUID for one in sent]
    history = cache.client.jobs.GetJobHistory(jobs_pb2.GetJobRequest(job=job.id))
    assert history.events[0].actor == "local"


def test_s12_what_is_not_stored_makes_no_job(cache: Cache) -> None:
    """Neither a series nor a study."""
    cache.keep(series_of("1.2.3.1", [1]))
    with pytest.raises(NotFoundError, match=r"series 9\.9: have it sent first"):
        cache.compose(part("9.9"))
    with pytest.raises(NotFoundError, match=r"study 9\.9: have it sent first"):
        cache.compose(messages.Part(study_instance_uid="9.9"))
    with pytest.raises(NotFoundError):
        cache.compose(part("1.2.3.1"), part("9.9"))
    assert cache.here.jobs() == []


def test_s14_a_job_needs_a_pipeline_that_there_is(cache: Cache) -> None:
    """Without one nothing is made; the preview says so too."""
    cache.keep(series_of("1.2.3.1", [1]))
    for pipeline in ("", "unknown"):
        with pytest.raises((NotFoundError, InvalidArgumentError)):
            cache.compose(part("1.2.3.1"), pipeline=pipeline)
    with pytest.raises(NotFoundError, match="unknown"):
        cache.preview(part("1.2.3.1"), pipeline="unknown")
    assert cache.here.jobs() == []


def test_s18_s29_s33_s34_several_series_each_with_its_range_in_their_order(cache: Cache) -> None:
    """The second comes first where it is named first."""
    one, two = series_of("1.2.3.1", range(1, 8)), series_of("1.2.3.2", range(1, 6))
    cache.keep([*one, *two])
    job = cache.compose(part("1.2.3.2", "5:1:-1"), part("1.2.3.1", "1:7:3"))
    first, second = inputs(cache, job)
    assert (first["series"], first["range"]) == ("1.2.3.2", "5:1:-1")
    assert uids(first) == [each.SOPInstanceUID for each in two[::-1]]
    assert (second["series"], second["range"]) == ("1.2.3.1", "1:7:3")
    assert uids(second) == [one[at].SOPInstanceUID for at in (0, 3, 6)]


def test_a_whole_study_is_every_series_of_it(cache: Cache) -> None:
    """By their numbers, all of each; a range that is named is that of each."""
    one = series_of("1.2.3.1", [1, 2, 5], SeriesNumber=10)
    two = series_of("1.2.3.2", [1, 2], SeriesNumber=2)
    cache.keep([*one, *two])
    whole = messages.Part(study_instance_uid="1.2.3")
    first, second = inputs(cache, cache.compose(whole))
    assert (first["series"], second["series"]) == ("1.2.3.2", "1.2.3.1")
    assert uids(second) == [each.SOPInstanceUID for each in one]
    preview = cache.preview(messages.Part(study_instance_uid="1.2.3", range="auto"))
    assert [len(each.instances) for each in preview.items[0].series] == [2, 2]


def test_items_are_run_each_on_their_own(cache: Cache) -> None:
    """One job, two items."""
    cache.keep([*series_of("1.2.3.1", [1]), *series_of("1.2.3.2", [1])])
    request = messages.ComposeJobRequest(
        pipeline="tell",
        items=[messages.Item(parts=[part(f"1.2.3.{n}")]) for n in (1, 2)],
    )
    job = cache.api.ComposeJob(request)
    assert [len(item.inputs) for item in job.items] == [1, 1]


def test_s19_s21_the_same_again_is_refused_and_names_the_jobs(cache: Cache) -> None:
    """While one waits, runs or has finished; nothing is registered."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    running_ = cache.compose(part("1.2.3.1"), pipeline="wait")
    finished = cache.compose(part("1.2.3.1"))
    cache.here.ended_jobs(1)
    for pipeline, job in (("wait", running_), ("tell", finished)):
        # However it was chosen: what counts is what it gets.
        for wanted in ("auto", "all", "1:2:1"):
            with pytest.raises(AlreadyExistsError) as caught:
                cache.compose(part("1.2.3.1", wanted), pipeline=pipeline)
            assert job.id in str(caught.value)
            assert job.name in str(caught.value)
    assert len(cache.here.jobs()) == 2


def test_other_inputs_or_another_pipeline_are_no_duplicate(cache: Cache) -> None:
    """Nor is another order, nor another part."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    cache.compose(part("1.2.3.1"))
    cache.compose(part("1.2.3.1"), pipeline="other")
    cache.compose(part("1.2.3.1", "2:1:-1"))
    cache.compose(part("1.2.3.1", "1"))
    assert len(cache.here.jobs()) == 4


def test_s20_failed_cancelled_and_invalidated_jobs_are_no_duplicates(cache: Cache) -> None:
    """Each can be composed again as it was."""
    cache.keep(series_of("1.2.3.1", [1]))
    cache.compose(part("1.2.3.1"), pipeline="fail")
    cache.here.ended_jobs(1)
    cache.compose(part("1.2.3.1"), pipeline="fail")
    waiting = cache.compose(part("1.2.3.1"), pipeline="wait")
    cache.client.jobs.CancelJob(jobs_pb2.CancelJobRequest(job=waiting.id))
    cache.here.ended_jobs(3)
    again = cache.compose(part("1.2.3.1"), pipeline="wait")
    cache.client.jobs.CancelJob(jobs_pb2.CancelJobRequest(job=again.id))
    finished = cache.compose(part("1.2.3.1"))
    inputs(cache, finished)
    wrong = jobs_pb2.InvalidateJobRequest(job=finished.id, reason="wrong plug-in")
    cache.client.jobs.InvalidateJob(wrong)
    assert cache.compose(part("1.2.3.1")).id != finished.id


def test_s22_force_makes_a_second_job_and_the_first_stays(cache: Cache) -> None:
    """With an id and a name of its own."""
    cache.keep(series_of("1.2.3.1", [1]))
    first = cache.compose(part("1.2.3.1"), name="mine")
    inputs(cache, first)
    before = cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=first.id))
    second = cache.compose(part("1.2.3.1"), name="mine", force=True)
    assert second.id != first.id
    assert second.name != first.name
    assert cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=first.id)) == before


def test_a_preview_names_what_is_there_missing_and_doubled(cache: Cache) -> None:
    """In the order of the job, and makes none."""
    sent = series_of("1.2.3.1", [4, 2, 1, 2])
    cache.keep(sent)
    (found,) = cache.preview(part("1.2.3.1", "all")).items[0].series
    assert [one.instance_number for one in found.instances] == [1, 2, 2, 4]
    assert {one.sop_instance_uid for one in found.instances} == {
        str(one.SOPInstanceUID) for one in sent
    }
    assert list(found.missing) == [3]
    assert list(found.doubled) == [2]
    refused = cache.preview(part("1.2.3.1", "1:4:1"))
    assert [problem.partition(": ")[2] for problem in refused.problems] == [
        "1:4:1: there is no instance 3: choose a range without them, or have them sent",
        "1:4:1: several instances have the number 2: choose all, or order by position",
    ]
    assert cache.here.jobs() == []


def test_what_a_preview_refuses_makes_no_job(cache: Cache) -> None:
    """With the same words."""
    cache.keep(series_of("1.2.3.1", [1, 4]))
    with pytest.raises(WrongStateError, match="there is no instance 7"):
        cache.compose(part("1.2.3.1", "1:7:3"))
    assert cache.here.jobs() == []


def test_a_job_is_of_one_patient(cache: Cache) -> None:
    """Two hospitals' patients with one ID are two."""
    cache.keep(
        [
            *series_of("1.2.3.1", [1], IssuerOfPatientID="A"),
            *series_of("1.2.4.1", [1], study="1.2.4", IssuerOfPatientID="B"),
        ]
    )
    with pytest.raises(WrongStateError, match="of 2 patients"):
        cache.compose(part("1.2.3.1"), part("1.2.4.1"))
    # Each on its own they may be.
    request = messages.ComposeJobRequest(
        pipeline="tell", items=[messages.Item(parts=[part(f"1.2.{n}.1")]) for n in (3, 4)]
    )
    assert cache.api.ComposeJob(request).instances == 2


def test_a_refusal_that_has_much_to_say_reaches_the_caller(cache: Cache) -> None:
    """It says the first of it, and that there is more: headers carry 8 KiB at most."""
    cache.keep([one for n in range(40) for one in series_of(f"1.2.3.{'9' * 50}{n}", [1])])
    parts = [part(f"1.2.3.{'9' * 50}{n}", "1:8001:4") for n in range(40)]
    with pytest.raises(WrongStateError) as refused:
        cache.compose(*parts[:10])
    assert "there is no instance 5, 9, 13," in str(refused.value)
    assert "and more: choose a range without them" in str(refused.value)
    for whole in (parts, [messages.Part(study_instance_uid="1.2.3", range="7")]):
        with pytest.raises(WrongStateError, match="there is no instance"):
            cache.compose(*whole)
    with pytest.raises(WrongStateError, match="and 30 more: see the preview"):
        cache.compose(*(part(f"1.2.3.{'9' * 50}{n}", "7") for n in range(40)))
    with pytest.raises(InvalidArgumentError, match="'xxx"):
        cache.compose(part("1.2.3.1", "x" * 100_000))
    with pytest.raises(NotFoundError, match="series 999"):
        cache.compose(part("9" * 100_000))


def test_a_study_of_two_patients_makes_no_job(cache: Cache) -> None:
    """Whatever the study is described as: each instance is asked whose it is."""
    cache.keep(
        [
            *series_of("1.2.3.1", [1], patient="P1"),
            *series_of("1.2.3.2", [1, 2], patient="P2"),
            *series_of("1.2.3.3", [1], patient="P1"),
        ]
    )
    for parts in (
        [messages.Part(study_instance_uid="1.2.3")],
        [part("1.2.3.1"), part("1.2.3.2")],
    ):
        with pytest.raises(WrongStateError, match="of 2 patients"):
            cache.compose(*parts)
    assert cache.compose(part("1.2.3.1"), part("1.2.3.3")).instances == 2


def test_what_was_indexed_before_patients_were_is_of_its_study(cache: Cache) -> None:
    """As it was taken then: by what the study says."""
    cache.keep([*series_of("1.2.3.1", [1]), *series_of("1.2.4.1", [1], study="1.2.4")])
    with cache.here.service.ledger.write() as tx:
        tx.execute(update(indexed_instances).values(patient=None))
    assert cache.compose(part("1.2.3.1"), part("1.2.4.1")).instances == 2
    cache.keep(series_of("1.2.5.1", [1], study="1.2.5", patient="other"))
    with pytest.raises(WrongStateError, match="of 2 patients"):
        cache.compose(part("1.2.3.1"), part("1.2.5.1"))


def test_studies_without_a_patient_id_are_of_two_patients(cache: Cache) -> None:
    """Nobody can tell otherwise; the series of one study are of one."""
    for study in ("1.2.3", "1.2.4"):
        cache.keep(
            [one for n in (1, 2) for one in series_of(f"{study}.{n}", [1], study=study, patient="")]
        )
    with pytest.raises(WrongStateError, match="of 2 patients"):
        cache.compose(part("1.2.3.1"), part("1.2.4.1"))
    assert cache.compose(part("1.2.3.1"), part("1.2.3.2")).instances == 2


def test_a_part_that_names_nothing_is_refused(cache: Cache) -> None:
    """It says what is wrong with it."""
    cache.keep(series_of("1.2.3.1", [1]))
    for wrong, told in (
        (messages.Part(), "must name a series or a study"),
        (part("1.2.3.1", "1:9:0"), "never gets on"),
        (part("1.2.3.1", order="size"), "must be one of number, position, not 'size'"),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            cache.preview(wrong)
        assert told in str(caught.value)


def test_a_request_without_items_is_refused(cache: Cache) -> None:
    """Both ways of having none."""
    for items in ([], [messages.Item()]):
        with cache.client.errors(), pytest.raises(Exception, match="INVALID_ARGUMENT"):
            cache.api.PreviewSelection(messages.PreviewSelectionRequest(items=items))


def test_the_same_request_id_makes_one_job(cache: Cache) -> None:
    """Also where the first has finished: it is the same request, no duplicate."""
    cache.keep(series_of("1.2.3.1", [1]))
    for name in ("mine", ""):
        first = cache.compose(part("1.2.3.1"), request_id=f"id-{name}", name=name, force=True)
        inputs(cache, first)
        again = cache.compose(part("1.2.3.1"), request_id=f"id-{name}", name=name, force=True)
        assert (again.id, again.name) == (first.id, first.name)


def test_a_request_that_let_its_images_go_finds_its_job(cache: Cache) -> None:
    """Where the answer was lost, the same call once more is answered by the job that there is."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    first = cache.compose(part("1.2.3.1"), request_id="once", release=True)
    cache.here.wait_for(lambda: not cache.studies())
    assert cache.compose(part("1.2.3.1"), request_id="once", release=True).id == first.id
    with pytest.raises(NotFoundError):
        cache.compose(part("1.2.3.1"), request_id="another", release=True)


def test_a_series_in_two_studies_is_named_with_one(cache: Cache) -> None:
    """As a broken device makes it: alone it is refused with the cure, with its study it is one."""
    cache.keep([*series_of("1.2.9", [1, 2]), *series_of("1.2.9", [1], study="1.2.4")])
    with pytest.raises(WrongStateError, match=r"1\.2\.3, 1\.2\.4: name one of them"):
        cache.preview(part("1.2.9"))
    both = messages.Part(series_instance_uid="1.2.9", study_instance_uid="1.2.4")
    assert cache.compose(both).instances == 1
    named = messages.GetSeriesRequest(series_instance_uid="1.2.9", study_instance_uid="1.2.3")
    assert cache.api.GetSeries(named).instances == 2
    wrong = messages.Part(series_instance_uid="1.2.9", study_instance_uid="1.2.5")
    with pytest.raises(NotFoundError, match="not in the study"):
        cache.preview(wrong)
    request = messages.ReleaseStudiesRequest(
        study_instance_uids=["1.2.3"], series_instance_uids=["1.2.9"]
    )
    assert cache.api.ReleaseStudies(request).released == 3


def test_a_series_that_grows_leaves_its_job_as_it_was(cache: Cache) -> None:
    """The job has what was chosen; the same range now is more, and so no duplicate."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    first = cache.compose(part("1.2.3.1"))
    cache.keep(series_of("1.2.3.1", [3]))
    assert cache.compose(part("1.2.3.1")).instances == 3
    assert cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=first.id)).instances == 2


def test_a_rerun_that_is_re_resolved_sees_what_has_come_since(cache: Cache) -> None:
    """As its range chooses now; what was chosen by numbers stays what it was."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    ranges = ("auto", "auto=longest", "all", "1:2:1")
    made = [cache.compose(part("1.2.3.1", wanted), force=True) for wanted in ranges]
    cache.keep(series_of("1.2.3.1", [3, 5, 6, 7, 8]))
    again = [
        cache.client.jobs.RerunJob(jobs_pb2.RerunJobRequest(job=job.id, reresolve=True))
        for job in made
    ]
    assert [job.instances for job in again] == [3, 4, 7, 2]
    assert [job.items[0].inputs[0].range for job in again] == list(ranges)
    cache.keep(series_of("1.2.3.1", [3]))
    with cache.client.errors(), pytest.raises(Exception, match="FAILED_PRECONDITION"):
        cache.client.jobs.RerunJob(jobs_pb2.RerunJobRequest(job=made[0].id, reresolve=True))


def test_what_two_ae_titles_keep_of_a_series_is_one_series(cache: Cache) -> None:
    """Each instance once; the job is of neither AE title."""
    sent = series_of("1.2.3.1", [1, 2])
    cache.keep(sent)
    cache.keep(sent, title="SECOND")
    cache.keep([make_instance(series="1.2.3.1", number=3)], title="SECOND")
    (found,) = cache.preview(part("1.2.3.1")).items[0].series
    assert [one.instance_number for one in found.instances] == [1, 2, 3]
    assert found.notes == ["2 more copies of its instances are left out"]
    assert cache.compose(part("1.2.3.1")).ae_title == ""
