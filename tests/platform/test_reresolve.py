"""Rerunning with re-resolve: a job keeps its list, its rerun sees what its series are by now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from pydicom import Dataset, dcmread

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import InvalidArgumentError, WrongStateError
from dicom_adapter.ledger import jobs
from dicom_adapter.model import LOCAL, InputFile, Job, JobInput
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import SOMEBODY, Platform, part10, platform, sh
from tests.platform.test_cancel import history
from tests.support import CONFIG, ManualClock, Running, make_instance, running, send

CONFIG_RETAINED = CONFIG.replace("reserve: 0,", "reserve: 0, retain: 1d,")
SERIES = (
    {"series": "1.2.3.4"},
    {"series": "1.2.3.5"},
    {"study": "1.2.9", "series": "1.2.3.4"},
)


@contextmanager
def adapter(folder: Path, text: str = CONFIG_RETAINED) -> Iterator[tuple[Running, ManualClock]]:
    """Run a service that keeps what was delivered for a day, on a clock of the test's."""
    clock = ManualClock()
    with running(folder, text, clock) as made:
        yield made, clock


def study(made: Running, clock: ManualClock, *sent: Dataset) -> Job:
    """Send a study and wait for the end of its job."""
    before = len(made.jobs())
    arrive(made, *sent)
    clock.advance(5)
    return made.ended_jobs(before + 1)[-1]


def arrive(made: Running, *sent: Dataset) -> None:
    """Send instances, and wait until they are in a group that is not due yet."""
    assert send(made.port, sent) == [0] * len(sent)
    made.grouped(len(sent))


def rerun(made: Running, job: Job, *, reresolve: bool = True, request_id: str = "") -> Job:
    """Rerun a job as a client does, and wait for its end."""
    request = jobs_pb2.RerunJobRequest(job=job.id, reresolve=reresolve, request_id=request_id)
    with Client(socket_address(made.service.settings)) as client:
        name = client.jobs.RerunJob(request).name

    def ended() -> Job | None:
        return next((one for one in made.jobs() if one.name == name and one.finished_at), None)

    found = made.wait_for(ended)
    assert found is not None
    assert found.state == "finished", found.error
    return found


def seen(made: Running, job: Job) -> list[list[Dataset]]:
    """Return what a job's command has seen, series by series, in its order."""
    folder = made.service.settings.storage.path / "platform" / "jobs" / job.id / "output"
    return [
        [dcmread(file, stop_before_pixels=True) for file in sorted(series.iterdir())]
        for series in sorted(folder.iterdir())
    ]


def uids(given: list[Dataset]) -> list[str]:
    """Return the SOP Instance UIDs of instances."""
    return [str(one.SOPInstanceUID) for one in given]


def test_a_rerun_that_re_resolves_sees_what_has_come_of_a_series_since(tmp_path: Path) -> None:
    """Its own series alone, by number, the job's own and a pinned rerun stay what they were."""
    first = [make_instance(number=number) for number in (5, 2)]
    late = [make_instance(number=number) for number in (None, 3)]
    others = [make_instance(number=1, **where) for where in SERIES[1:]]
    with adapter(tmp_path) as (made, clock):
        job = study(made, clock, *first)
        arrive(made, *late, *others)
        assert [uids(one) for one in seen(made, rerun(made, job, reresolve=False))] == [
            uids([first[1], first[0]])
        ]
        grown = rerun(made, job)
        assert [uids(one) for one in seen(made, grown)] == [
            uids([first[1], late[1], first[0], late[0]])
        ]
        assert (grown.instances, grown.rerun_of) == (4, job.name)
        with made.service.ledger.read() as tx:
            ((series,),) = jobs.inputs_of(tx, job.id).values()
            assert len(series.files) == 2


def test_each_series_of_a_job_grows_by_its_own(tmp_path: Path) -> None:
    """Series keep their order, however many have come of them."""
    first = [make_instance(number=1, series=series) for series in ("1.2.3.9", "1.2.3.4")]
    late = [make_instance(number=2, series=series) for series in ("1.2.3.4", "1.2.3.9")]
    with adapter(tmp_path) as (made, clock):
        job = study(made, clock, *first)
        arrive(made, *late)
        assert [uids(one) for one in seen(made, rerun(made, job))] == [
            uids([first[0], late[1]]),
            uids([first[1], late[0]]),
        ]


def test_the_same_request_makes_one_job_however_a_series_grows(tmp_path: Path) -> None:
    """Its id stands for what was asked, not for what was found; with re-resolve is another one."""
    with adapter(tmp_path) as (made, clock):
        job = study(made, clock, make_instance(number=1))
        again = rerun(made, job, request_id="once")
        arrive(made, make_instance(number=2))
        assert rerun(made, job, request_id="once").id == again.id
        assert again.instances == 1
        with pytest.raises(grpc.RpcError) as refused:
            rerun(made, job, request_id="once", reresolve=False)
        assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("keep-first", ["early"]), ("keep-last", ["late"]), ("keep-both", ["early", "late"])],
)
def test_of_several_alike_it_sees_what_the_ae_title_says_by_now(
    tmp_path: Path, rule: str, expected: list[str]
) -> None:
    """Other bytes of one SOP Instance UID: first, last or both, by the rule of today."""
    early = make_instance(StudyDescription="early")
    late = make_instance(StudyDescription="late", SOPInstanceUID=early.SOPInstanceUID)
    late.file_meta.MediaStorageSOPInstanceUID = early.SOPInstanceUID
    with adapter(tmp_path) as (made, clock):
        job = study(made, clock, early)
        arrive(made, late)
        config = Path(made.service.settings.file)
        config.write_text(
            CONFIG_RETAINED.replace("TEST: {", f"TEST: {{duplicates: {rule}, "), "utf-8"
        )
        made.service.reload()
        (series,) = seen(made, rerun(made, job))
    assert [one.StudyDescription for one in series] == expected


def test_what_only_the_job_still_has_is_part_of_it(tmp_path: Path) -> None:
    """Where the spool let go of the job's own, its own files and the new ones do.

    What comes once more after that is the same instance, not a second one.
    """
    first, late = make_instance(number=1), make_instance(number=2)
    both = CONFIG.replace("TEST: {", "TEST: {duplicates: keep-both, ")
    with adapter(tmp_path, both) as (made, clock):
        job = study(made, clock, first)
        spool = tmp_path / "data" / "spool" / "instances"
        made.wait_for(lambda: not list(spool.iterdir()))
        arrive(made, late, first)
        assert [uids(one) for one in seen(made, rerun(made, job))] == [uids([first, late])]


def resolved(made: Platform, *inputs: JobInput, ae_title: str = "TEST") -> list[list[str]]:
    """Make a job of inputs, rerun it with re-resolve, and return the ids that this has."""
    job = made.submit(inputs=inputs, ae_title=ae_title)
    again = made.operations.rerun(SOMEBODY, job.id, latest=False, reresolve=True)
    with made.ledger.read() as tx:
        (found,) = jobs.inputs_of(tx, again.id).values()
    assert [one.range for one in found] == [one.range for one in inputs]
    return [[file.instance_id for file in one.files] for one in found]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose instances are all of one series."""
    with platform(tmp_path, sh("true")) as found:
        yield found


def whole(*files: InputFile) -> JobInput:
    """Return the series that the platform's instances are of, with some of them."""
    return JobInput("1.2.3", "1.2.3.4", "all", files)


def test_a_part_of_a_series_stays_what_it_was(made: Platform) -> None:
    """An input of another range than `all` keeps its list, beside one that grows."""
    first, second, third = (made.store() for _ in range(3))
    found = resolved(made, replace(whole(second), range="2"), whole(first))
    assert found == [[second.instance_id], [one.instance_id for one in (first, second, third)]]


def test_who_reran_it_how_is_told(made: Platform) -> None:
    """The history of the new job says that its inputs were looked up anew."""
    job = made.submit()
    again = made.operations.rerun(SOMEBODY, job.id, latest=False, reresolve=True)
    assert history(made, again)[0].reason == f"rerun of {job.name}, re-resolved"


def test_a_job_of_no_ae_title_is_refused(made: Platform) -> None:
    """Its series did not come by any, so nothing could have come of them since."""
    with pytest.raises(InvalidArgumentError, match="reresolve: test-test is of no AE") as refused:
        resolved(made, whole(made.store()), ae_title="")
    assert "rerun it without re-resolving" in str(refused.value)
    assert len(made.workspaces.all_ids()) == 1


def test_instances_of_another_machine_are_refused(made: Platform) -> None:
    """The ledger here does not know what was uploaded, nor what has come of it there."""
    data = part10()
    upload = replace(made.store(data), instance_id="far-1")
    made.uploads.receive(upload, len(data), [data])
    with pytest.raises(InvalidArgumentError, match="uploaded by another machine, so nothing here"):
        resolved(made, whole(upload))
    # A part of a series needs nobody who knows the rest.
    assert resolved(made, replace(whole(upload), range="1")) == [["far-1"]]


@pytest.mark.parametrize("wrong", ["title", "series"])
def test_a_series_that_the_instances_are_not_of_is_refused(made: Platform, wrong: str) -> None:
    """Who names an instance does not get by it what came elsewhere."""
    file = made.store()
    series = whole(file) if wrong == "title" else replace(whole(file), series="1.2.3.5")
    with pytest.raises(InvalidArgumentError, match="did not come in here by"):
        resolved(made, series, ae_title="OTHER" if wrong == "title" else "TEST")


def test_a_series_of_which_nothing_is_left_is_refused(made: Platform) -> None:
    """Neither the job nor the spool has any of it: it has to be sent again."""
    file = made.store()
    job = made.until(made.submit(inputs=(whole(file),)))
    made.workspaces.of(job.id).reclaim("inputs")
    made.spool.path_of(file.instance_id).unlink()
    with pytest.raises(WrongStateError, match=f"nothing is left of a series of {job.name}: send"):
        made.operations.rerun(SOMEBODY, job.id, latest=False, reresolve=True)
    made.store()
    again = made.operations.rerun(SOMEBODY, job.id, latest=False, reresolve=True)
    assert made.views.get(LOCAL, again.id).instances == 1
