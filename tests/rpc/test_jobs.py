import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dicom_adapter.errors import InvalidArgumentError, NotFoundError, WrongStateError
from dicom_adapter.ledger import events
from dicom_adapter.model import LOCAL, Caller, InputFile, JobInput, JobRequest, Priority
from dicom_adapter.platform.views import JobViews
from dicom_adapter.rpc import convert, server
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.server import THREADS
from dicom_adapter.v1 import jobs_pb2, pipelines_pb2
from tests.platform.harness import SOMEBODY, wait_for_file
from tests.rpc.conftest import Served


def refused(call: Callable[[Any], Any], request: Any) -> tuple[str, str, str]:  # noqa: ANN401 - any message
    """Return code, message and, where it is told, the field of a refused call."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    error: Any = caught.value
    field = ""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        assert detail.Unpack(bad)
        (violation,) = bad.field_violations
        assert violation.description
        field = violation.field
    return error.code().name, error.details(), field


def test_s1_a_request_makes_one_job(served: Served) -> None:
    """The same request again, also after the job has ended, returns the job that it made."""
    request = served.platform.request()
    first = served.client.submit(request)
    assert served.client.submit(request) == first
    served.platform.until(served.platform.views.get(LOCAL, first))
    assert served.client.submit(request) == first
    assert served.workspaces == [first]
    assert len(served.jobs) == 1


def test_s1_s2_s5_t1_a_job_has_its_id_from_the_first_moment_on(served: Served) -> None:
    """It waits by the id that the call returned, keeps it to its end, and no other job gets it."""
    made, client = served.platform, served.client
    made.platform.pause(LOCAL)
    job_id = client.submit(made.request("fail"))
    request = jobs_pb2.GetJobRequest(job=job_id)
    waiting = client.jobs.GetJob(request)
    assert (waiting.id, waiting.state) == (job_id, jobs_pb2.JOB_STATE_IN_QUEUE)
    assert (waiting.attempts, waiting.HasField("started_at")) == (0, False)
    (move,) = client.jobs.GetJobHistory(request).events
    assert (move.action, move.from_state, move.to_state) == ("create", "", "in_queue")
    made.platform.resume(LOCAL)
    made.control.retry(SOMEBODY, made.until(made.views.get(LOCAL, job_id)).id)
    ended = made.until(made.views.get(LOCAL, job_id))
    assert (ended.id, ended.attempts) == (job_id, 2)
    made.control.delete(SOMEBODY, job_id)
    others = {client.submit(made.request()) for _ in range(3)}
    assert (len(others), job_id in others) == (3, False)
    assert refused(client.jobs.GetJob, request)[0] == "NOT_FOUND"


def test_s41_a_job_outlives_the_client_that_made_it(served: Served) -> None:
    """The call returns before it has ended, its client goes, and another one finds it finished."""
    with Client(served.address, served.platform.known_as("another")) as client:
        job_id = client.submit(served.platform.request("wait"))
        served.platform.until(served.platform.views.get(LOCAL, job_id), "processing")
    # Another job's whole life has passed since.
    served.platform.until(served.platform.submit())
    request = jobs_pb2.GetJobRequest(job=job_id)
    assert served.client.jobs.GetJob(request).state == jobs_pb2.JOB_STATE_PROCESSING
    (served.platform.workspaces.folder / "go").touch()
    changes = served.client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(job=job_id))
    *_, last = changes
    assert (last.job.state, last.job.attempts) == (jobs_pb2.JOB_STATE_FINISHED, 1)


def test_a_request_that_comes_many_times_at_once_makes_one_job(served: Served) -> None:
    """Sixteen threads with one request id get the same job; one job and one folder exist."""
    request = served.platform.request()
    together = threading.Barrier(16)

    def submit(_: int) -> str:
        together.wait()
        return served.client.submit(request)

    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(submit, range(16)))
    assert len(ids) == 1
    assert served.workspaces == list(ids)
    assert len(served.jobs) == 1


def test_r16_many_requests_at_once_make_as_many_jobs_with_names_of_their_own(
    served: Served,
) -> None:
    """Jobs that ask for one name within one second get different ones."""
    requests = [served.platform.request(name="A" * 70) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        ids = set(pool.map(served.client.submit, requests))
    assert len(ids) == 12
    assert len(set(served.jobs)) == 12
    assert all(name.startswith("a" * 50) and len(name) <= 63 for name in served.jobs)


@pytest.mark.parametrize(
    "other",
    [
        {"pipeline": "wait"},
        {"priority": Priority.HIGHER},
        {"arguments": {"a": "b"}},
        {"name": "other"},
        {"ae_title": "OTHER"},
        {"items": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_request_id_cannot_be_used_for_something_else(
    served: Served, other: dict[str, Any]
) -> None:
    """The same id with other contents is ALREADY_EXISTS, names the job, and makes nothing."""
    request = served.platform.request()
    first = served.client.submit(request)
    if "items" in other:
        other = {"items": request.items * 2}
    changed = convert.to_request(replace(request, **other))
    code, message, _ = refused(served.client.jobs.SubmitJob, changed)
    assert (code, served.jobs[0] in message) == ("ALREADY_EXISTS", True)
    assert served.workspaces == [first]


def _change(message: jobs_pb2.SubmitJobRequest, field: str, value: Any) -> None:  # noqa: ANN401 - of the field's type
    *path, last = field.replace("[0]", ".0").split(".")
    target: Any = message
    for part in path:
        target = target[int(part)] if part.isdigit() else getattr(target, part)
    if value is None:
        target.ClearField(last)
    else:
        setattr(target, last, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""),
        ("request_id", "x" * 129),
        ("name", "---"),
        ("name", ""),
        ("priority", 17),
        ("items", None),
        ("items[0].inputs", None),
        ("items[0].inputs[0].instances", None),
        ("items[0].inputs[0].instances[0].id", ""),
        ("items[0].inputs[0].instances[0].id", "x" * 65),
        ("items[0].inputs[0].instances[0].id", "../../etc/passwd"),
        ("items[0].inputs[0].instances[0].id", "a\n"),
        ("items[0].inputs[0].instances[0].id", "a/b"),
        ("items[0].inputs[0].instances[0].sha256", ""),
        ("items[0].inputs[0].instances[0].sha256", "A" * 64),
        ("items[0].inputs[0].instances[0].sha256", "0" * 63),
        ("items[0].inputs[0].instances[0].sha256", "../" * 21 + "x"),
    ],
)
def test_a_bad_field_is_named(served: Served, field: str, value: Any) -> None:  # noqa: ANN401 - of the field's type
    """A wrong value is INVALID_ARGUMENT, its field named in the details, and nothing is made."""
    message = convert.to_request(served.platform.request())
    _change(message, field, value)
    code, _, named = refused(served.client.jobs.SubmitJob, message)
    assert (code, named) == ("INVALID_ARGUMENT", field)
    assert served.workspaces == []


@pytest.mark.parametrize("count", [0, 1001])
def test_a_job_has_some_items_but_not_any_number(served: Served, count: int) -> None:
    """None at all, and more than a thousand, are refused, and the refusal says so."""
    message = convert.to_request(served.platform.request())
    item = message.items.pop()
    message.items.extend([item] * count)
    assert refused(served.client.jobs.SubmitJob, message) == (
        "INVALID_ARGUMENT",
        f"items: must be 1 to 1000, not {count}",
        "items",
    )


def test_arguments_are_not_a_way_for_data(served: Served) -> None:
    """More of them than a list of very many jobs could show is refused; so much is not."""
    message = convert.to_request(served.platform.request())
    message.arguments["model"] = "é" * (16 * 1024 - 2)
    assert refused(served.client.jobs.SubmitJob, message) == (
        "INVALID_ARGUMENT",
        "arguments: must be at most 32768 bytes in all, not 32769: name a file instead",
        "arguments",
    )
    message.arguments["model"] = message.arguments["model"][1:]
    served.client.jobs.SubmitJob(message)


def test_every_thread_that_answers_is_there_from_the_start(served: Served) -> None:
    """So that a machine that has no more threads for a while does not end the answers for good."""
    names = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith("grpc_") for name in names) >= THREADS
    assert not served.workspaces


def test_an_unknown_pipeline_is_not_found(served: Served) -> None:
    """A pipeline that the platform does not have is told with those that it has."""
    message = convert.to_request(served.platform.request("heart"))
    code, text, _ = refused(served.client.jobs.SubmitJob, message)
    assert code == "NOT_FOUND"
    assert text == "the platform has no pipeline 'heart'; it has fail, test, wait"
    assert served.workspaces == []


def _unknown(served: Served) -> InputFile:
    del served
    return InputFile("unknown", "0" * 64, "1.2")


def _other_bytes(served: Served) -> InputFile:
    return replace(served.platform.store(), sha256="f" * 64)


def _removed_by_hand(served: Served) -> InputFile:
    file = served.platform.store()
    served.platform.spool.remove(file.instance_id)
    return file


@pytest.mark.parametrize("absent", [_unknown, _other_bytes, _removed_by_hand])
def test_t1_a_missing_instance_fails_the_request_whole(
    served: Served, absent: Callable[[Served], InputFile]
) -> None:
    """An instance that is not here is FAILED_PRECONDITION; nothing is left on the disk."""
    here, gone = served.platform.store(), absent(served)
    request = served.platform.request(inputs=(JobInput("1", "2", "all", (here, gone)),))
    assert served.client.missing([here, gone]) == [gone]
    code, text, _ = refused(served.client.jobs.SubmitJob, convert.to_request(request))
    assert code == "FAILED_PRECONDITION"
    assert gone.instance_id in text
    assert "upload it, then submit again" in text
    assert (served.workspaces, served.jobs) == ([], [])


def test_s52_s53_a_job_is_shown_whole(served: Served) -> None:
    """GetJob finds by id and by name, and tells all that is known."""
    request = served.platform.request(arguments={"a": "b"}, priority=Priority.HIGHER)
    job_id = served.client.submit(request)
    served.platform.until(served.platform.views.get(LOCAL, job_id))
    job = served.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job_id))
    assert served.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job.name)) == job
    shown = MessageToDict(job, preserving_proto_field_name=True)
    used = shown.pop("used")
    assert {"wall_seconds"} <= used.keys() <= {"cpu_seconds", "max_rss_bytes", "wall_seconds"}
    (item,) = shown.pop("items")
    assert shown.pop("item_counts") == {"finished": 1}
    assert shown.pop("executor") == "local"
    assert item.pop("used").keys() <= {"cpu_seconds", "max_rss_bytes", "wall_seconds"}
    assert item == {
        "id": item["id"],
        "number": 1,
        "state": "finished",
        "exit_code": "0",
        "started_at": shown["started_at"],
        "finished_at": shown["finished_at"],
        "inputs": [
            {
                "study_instance_uid": "1.2.3",
                "series_instance_uid": "1.2.3.4",
                "range": "all",
                "instances": "1",
            }
        ],
    }
    assert shown == {
        "id": job_id,
        "name": "test-test",
        "project": "default",
        "pipeline": "test",
        "pipeline_version": job.pipeline_version,
        "state": "JOB_STATE_FINISHED",
        "priority": "PRIORITY_HIGHER",
        "ae_title": "TEST",
        "instances": "1",
        "created_at": "2026-01-02T03:04:05Z",
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:04:05Z",
        "arguments": {"a": "b"},
        "requested": {"cpus": "1", "memory": "1048576"},
        "attempts": "1",
        "exit_code": "0",
        "cancel_policy": "kill",
        "provenance_file": str(served.platform.workspaces.of(job_id).provenance),
    }


def test_a_provenance_of_any_length_comes_in_chunks(served: Served) -> None:
    """Its bytes are the file's, however many inputs it names; what has not finished has none."""
    inputs = (JobInput("1.2.3", "1.2.3.4", "all", (served.platform.store(),) * 1000),)
    job_id = served.client.submit(served.platform.request(inputs=inputs))
    served.platform.until(served.platform.views.get(LOCAL, job_id))
    request = jobs_pb2.StreamProvenanceRequest(job=job_id)
    chunks = [chunk.data for chunk in served.client.jobs.StreamProvenance(request)]
    assert max(map(len, chunks)) <= 64 * 1024 < sum(map(len, chunks))
    path = Path(served.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job_id)).provenance_file)
    assert b"".join(chunks) == path.read_bytes()
    failed = served.client.submit(served.platform.request("fail"))
    served.platform.until(served.platform.views.get(LOCAL, failed))
    with (
        pytest.raises(WrongStateError, match="only what has finished"),
        served.client.errors(),
    ):
        list(served.client.jobs.StreamProvenance(jobs_pb2.StreamProvenanceRequest(job=failed)))


def test_what_does_not_exist_is_not_found(served: Served) -> None:
    """Every call about a job that does not exist is NOT_FOUND and names what was asked for."""
    jobs = served.client.jobs
    for call, request in (
        (jobs.GetJob, jobs_pb2.GetJobRequest(job="x")),
        (lambda r: list(jobs.StreamLogs(r)), jobs_pb2.StreamLogsRequest(job="x")),
        (lambda r: list(jobs.WatchJobs(r)), jobs_pb2.WatchJobsRequest(job="x")),
    ):
        assert refused(call, request) == ("NOT_FOUND", "no job has the id or name 'x'", "")
    pipeline = pipelines_pb2.GetPipelineRequest(name="x")
    assert refused(served.client.pipelines.GetPipeline, pipeline)[0] == "NOT_FOUND"


def test_pages_are_walked_while_jobs_arrive(served: Served) -> None:
    """A page's token leads to the next page, the last has none; newer jobs do not shift them."""
    for number in range(5):
        served.client.submit(served.platform.request(name=f"job-{number}"))
    request = jobs_pb2.ListJobsRequest(page_size=2)
    seen = []
    while True:
        page = served.client.jobs.ListJobs(request)
        seen += [job.name for job in page.jobs]
        served.client.submit(served.platform.request(name="late"))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    many = served.client.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=2**31 - 1))
    assert len(many.jobs) == 8


def test_jobs_are_filtered(served: Served) -> None:
    """ListJobs takes any of the states, and a pipeline and an AE title."""
    made = {
        name: served.platform.submit(name, name=name, ae_title=name.upper())
        for name in ("test", "fail", "wait")
    }
    for name in ("test", "fail"):
        served.platform.until(made[name])
    served.platform.until(made["wait"], "processing")

    def names(**wanted: Any) -> list[str]:  # noqa: ANN401 - fields of the request
        page = served.client.jobs.ListJobs(jobs_pb2.ListJobsRequest(**wanted))
        return [job.name for job in page.jobs]

    assert names(states=[jobs_pb2.JOB_STATE_FAILED]) == ["fail"]
    assert names(states=[jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_FINISHED]) == [
        "fail",
        "test",
    ]
    assert names(pipeline="wait") == ["wait"]
    assert names(ae_title="TEST") == ["test"]
    assert names(ae_title="TEST", pipeline="wait") == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", -1),
        ("page_token", "x"),
        ("page_token", "-1"),
        ("page_token", "9" * 30),
        ("page_token", "\u0663"),
        ("states", [42]),
        ("states", [0]),
    ],
)
def test_a_bad_list_request_names_the_field(served: Served, field: str, value: Any) -> None:  # noqa: ANN401 - of the field's type
    """A page size, token or state that cannot be is refused by its name."""
    request = jobs_pb2.ListJobsRequest(**{field: value})
    code, _, named = refused(served.client.jobs.ListJobs, request)
    assert (code, named) == ("INVALID_ARGUMENT", field)


def test_a_log_is_streamed(served: Served) -> None:
    """Without `follow` a log is what there is now; with it, all there will be."""
    job = served.platform.submit("wait")
    wait_for_file(served.platform.workspaces.of(job.id).log)
    stream = served.client.jobs.StreamLogs
    following = stream(jobs_pb2.StreamLogsRequest(job=job.name, follow=True))
    assert next(following).data == b"early\n"
    now = stream(jobs_pb2.StreamLogsRequest(job=job.id))
    assert b"".join(chunk.data for chunk in now) == b"early\n"
    (served.platform.workspaces.folder / "go").touch()
    assert b"".join(chunk.data for chunk in following) == b"late\n"


def test_a_job_that_waits_has_an_empty_log(served: Served) -> None:
    """Before its command runs a job has no log, and that is no error."""
    served.platform.scheduler.stop(10)
    job = served.platform.submit()
    assert list(served.client.jobs.StreamLogs(jobs_pb2.StreamLogsRequest(job=job.id))) == []


def test_a_watched_job_is_told_from_now_to_its_end(served: Served) -> None:
    """Watching one job begins with it as it stands, tells its moves and steps, ends with it."""
    job = served.platform.until(served.platform.submit("wait"), "processing")
    changes = served.client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(job=job.name))
    assert next(changes).job.state == jobs_pb2.JOB_STATE_PROCESSING
    workspace = served.platform.workspaces.of(job.id)
    # Its start removes what an earlier attempt has reported.
    wait_for_file(workspace.log)
    workspace.progress.write_text('{"step": "b", "progress": 0.5}\n')
    reported = [("done", 1.0), ("running", 0.5)]
    # How far its attempt is may be told in between.
    assert any([(s.state, s.progress) for s in one.job.steps] == reported for one in changes)
    (served.platform.workspaces.folder / "go").touch()
    *_, last = changes
    assert last.job.state == jobs_pb2.JOB_STATE_FINISHED
    ended = served.client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(job=job.id))
    assert [change.job.state for change in ended] == [jobs_pb2.JOB_STATE_FINISHED]


def test_all_jobs_are_watched_from_an_event_on(served: Served) -> None:
    """Watching all jobs goes on after the event that was seen last: none is missed."""
    first = served.platform.until(served.platform.submit())
    (seen,) = served.client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(job=first.id))
    second = served.platform.until(served.platform.submit("fail"))
    changes = served.client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(after_event=seen.event))
    found = [next(changes) for _ in range(3)]
    assert [change.event - seen.event for change in found] == [1, 2, 3]
    assert {change.job.id for change in found} == {second.id}
    assert [change.move.action for change in found] == ["create", "claim", "fail"]
    third = served.platform.submit()
    assert next(changes).job.id == third.id
    changes.cancel()


def test_a_deleted_job_is_told_of_who_watches(served: Served) -> None:
    """Its moves are there still, without the job, for whoever goes on from before it was made."""
    job = served.platform.until(served.platform.submit())
    with served.platform.ledger.read() as tx:
        first = events.of_subject(tx, job.id)[0].number
    served.platform.control.delete(SOMEBODY, job.id, why="a test")
    request = jobs_pb2.WatchJobsRequest(after_event=first)
    changes = served.client.jobs.WatchJobs(request)
    found = [next(changes) for _ in range(3)]
    changes.cancel()
    assert [change.move.action for change in found] == ["claim", "finish", "delete"]
    assert {change.job_id for change in found} == {job.id}
    assert not any(change.HasField("job") for change in found)
    assert (found[-1].move.to_state, found[-1].move.reason) == ("", "a test")


def test_those_who_watch_leave_threads_for_those_who_submit(served: Served) -> None:
    """However many watch or follow, jobs can be submitted; one too many is told to come later."""
    job = served.platform.submit("wait")
    wait_for_file(served.platform.workspaces.of(job.id).log)
    request = jobs_pb2.StreamLogsRequest(job=job.id, follow=True)
    streams = [served.client.jobs.StreamLogs(request) for _ in range(server.STREAMS)]
    for stream in streams:
        assert next(stream).data == b"early\n"
    code, text, _ = refused(lambda r: list(served.client.jobs.StreamLogs(r)), request)
    assert (code, "try again later" in text) == ("UNAVAILABLE", True)
    another = served.client.submit(served.platform.request())
    assert served.platform.until(served.platform.views.get(LOCAL, another)).state == "finished"
    (served.platform.workspaces.folder / "go").touch()
    for stream in streams:
        assert [chunk.data for chunk in stream] == [b"late\n"]
    assert len(list(served.client.jobs.StreamLogs(request))) == 1


def test_a_fault_of_ours_tells_the_caller_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody foresaw is INTERNAL; its text goes neither out nor to the log."""

    def fault(self: JobViews, caller: Caller, name: str) -> None:
        del self, caller
        raise KeyError(name)

    monkeypatch.setattr(JobViews, "get", fault)
    code, text, _ = refused(served.client.jobs.GetJob, jobs_pb2.GetJobRequest(job="DOE^JOHN"))
    assert (code, "DOE" in text) == ("INTERNAL", False)
    told = capsys.readouterr()
    assert "rpc.failed" in told.out + told.err
    assert "DOE" not in told.out + told.err


def test_s43_pipelines_are_shown(served: Served) -> None:
    """Pipelines are listed by name, each as it is shown alone; a version is one command."""
    listed = served.client.pipelines.ListPipelines(pipelines_pb2.ListPipelinesRequest()).pipelines
    assert [pipeline.name for pipeline in listed] == ["fail", "test", "wait"]
    request = pipelines_pb2.GetPipelineRequest(name="wait")
    shown = served.client.pipelines.GetPipeline(request)
    assert shown == listed[2]
    assert [pipeline.description for pipeline in listed] == ["", "", "It waits."]
    assert (shown.cancel_policy, shown.log_size, shown.queue_timeout_seconds) == ("kill", 2**24, 0)
    assert (shown.retries.attempts, shown.limits.HasField("running")) == (0, False)
    assert len({pipeline.version for pipeline in listed}) == 3


def test_s25_what_is_not_met_makes_a_job_that_failed(served: Served) -> None:
    """A client that finds its inputs otherwise has a job that never runs, one for its request."""
    made = served.platform
    said = ("series 1.2: modality is MR, required is CT", "and 2 more")
    request = replace(made.request(), unmet=said)
    job_id = served.client.submit(request)
    job = served.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job_id))
    assert job.state == jobs_pb2.JOB_STATE_FAILED
    assert (job.reason, job.attempts) == ("input_error", 0)
    assert job.error == f"its inputs are not what the pipeline requires: {'; '.join(said)}"
    assert [item.state for item in job.items] == ["failed"]
    # What is found of the inputs is no part of what is asked for: the same request is the same.
    assert served.client.submit(replace(request, unmet=())) == job_id
    assert made.until(made.views.get(LOCAL, job_id)).attempts == 0
    assert len(served.jobs) == 1
    # Who waits for the end of jobs is told.
    assert made.ended.is_set()


@pytest.mark.parametrize("lines", [[""], ["x" * 1025], ["x"] * 101])
def test_what_is_not_met_is_told_in_few_words(served: Served, lines: list[str]) -> None:
    """Empty, endless and countless lines are refused by the name of their field."""
    request = replace(served.platform.request(), unmet=tuple(lines))
    with pytest.raises(InvalidArgumentError) as refusal:
        served.client.submit(request)
    assert refusal.value.field == "unmet"


def test_a_request_may_be_larger_than_grpcs_own_limit(served: Served) -> None:
    """A job of 40,000 instances, 7 MB of references, is asked about and submitted."""
    stored = served.platform.store()
    files = tuple(
        InputFile(f"{n:032x}", stored.sha256, "1.2.840." + "9" * 50) for n in range(40_000)
    )
    assert served.client.missing([stored, *files]) == list(files)
    items = ((JobInput("1", "2", "all", (stored, *files)),),)
    request = JobRequest("r", "large", "test", Priority.NORMAL, "", items)
    message = convert.to_request(request)
    assert message.ByteSize() > 4 * 1024**2
    code, text, _ = refused(served.client.jobs.SubmitJob, message)
    assert code == "FAILED_PRECONDITION"
    assert files[0].instance_id in text
    assert served.workspaces == []


def test_the_client_raises_our_own_exceptions(served: Served) -> None:
    """A refusal arrives at the other end as the exception that it was."""
    with pytest.raises(NotFoundError, match="the platform has no pipeline 'heart'"):
        served.client.submit(served.platform.request("heart"))
