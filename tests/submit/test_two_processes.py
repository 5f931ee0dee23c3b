import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from dicom_adapter.ledger import Ledger, submissions
from dicom_adapter.ledger.jobs import JobFilter, listed
from dicom_adapter.lifecycle import TERMINAL
from dicom_adapter.model import LOCAL, Job, Submission
from dicom_adapter.rpc.client import Client, options
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.v1 import adapter_pb2, jobs_pb2, jobs_pb2_grpc
from tests.submit.servers import ended, serving
from tests.support import (
    PATIENCE,
    ManualClock,
    Running,
    files_in,
    let_in,
    make_instance,
    running,
    send,
)

PLATFORM = """
grpc: {listen: "127.0.0.1:PORT"}
pipelines:
  copy:
    command: [sh, -c, 'cp -r "$0"/. "$1"', "{input}", "{output}"]
    resources: {memory: 1MiB}
"""
OTHER = PLATFORM.replace("copy:", "other:")
ADAPTER = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
platform: {address: "127.0.0.1:PORT", token: ../token}
ae_titles:
  TEST: {settings: {pipeline-copy: copy}}
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def known(folder: Path) -> Credentials:
    """Let the adapter in at the platform, also one that has not run yet; return what it shows."""
    file = folder / "token"
    if not file.exists():
        let_in(folder / "platform" / "data" / "ledger.db", file)
    return Credentials(file.read_text())


@contextmanager
def platform(folder: Path, port: int, text: str = PLATFORM) -> Iterator[str]:
    """Run a platform alone in this process, on a port; return where it is served."""
    known(folder)
    with running(folder / "platform", text.replace("PORT", str(port))) as made:
        yield made.ready.grpc[0]


@contextmanager
def adapter(folder: Path, port: int, clock: ManualClock) -> Iterator[Running]:
    """Run an adapter in this process, on a clock of the test's, before the platform at a port."""
    known(folder)
    (folder / "adapter").mkdir(exist_ok=True)
    with running(folder / "adapter", ADAPTER.replace("PORT", str(port)), clock) as made:
        yield made


def send_study(made: Running, clock: ManualClock, numbers: tuple[int, ...] = (1,)) -> None:
    """Send a study and let its group become due."""
    assert send(made.port, [make_instance(number=number) for number in numbers]) == [0] * len(
        numbers
    )
    made.grouped(len(numbers))
    clock.advance(5)


def unsettled(made: Running, **wanted: object) -> Submission:
    """Wait until the one submission that is not accepted yet is as wanted."""

    def look() -> Submission | None:
        with made.service.ledger.read() as tx:
            found = submissions.listed(tx)
        fits = [s for s in found if all(getattr(s, k) == v for k, v in wanted.items())]
        return fits[0] if fits else None

    found = made.wait_for(look)
    assert found is not None
    return found


def settled(made: Running) -> None:
    """Wait until nothing is left to submit, and the adapter's own files are reclaimed."""

    def look() -> bool:
        with made.service.ledger.read() as tx:
            return not submissions.listed(tx)

    made.wait_for(look)
    made.wait_for(lambda: not files(made))


def files(made: Running) -> list[Path]:
    """Return the instances in the adapter's spool."""
    folder = made.service.settings.storage.path / "spool" / "instances"
    # os.walk, which does not mind that the reclaimer removes a folder under it.
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs of a platform that has ended."""
    ledger = Ledger(f"sqlite:///{folder / 'platform' / 'data' / 'ledger.db'}")
    with ledger.read() as tx:
        found = listed(tx, JobFilter(), 100)[0]
    ledger.close()
    return found


def test_adapter_and_platform_as_two_processes(tmp_path: Path) -> None:
    """A study sent to an adapter runs on a platform that shares no disk with it.

    The instances are uploaded, their order kept, and the adapter's own files are reclaimed.
    """
    port, shown = free_port(), known(tmp_path)
    with (
        serving(tmp_path / "platform", PLATFORM.replace("PORT", str(port))) as far,
        serving(tmp_path / "adapter", ADAPTER.replace("PORT", str(port))) as near,
        Client(far.grpc, shown) as client,
        Client(near.grpc) as around,
    ):
        assert far.grpc == f"127.0.0.1:{port}"
        assert "dicom" not in far.ready
        study = [
            make_instance(series=series, number=number)
            for series, number in (("1.2.9", 2), ("1.2.1", None), ("1.2.9", 1), ("1.2.1", -3))
        ]
        assert send(near.port, study) == [0] * 4
        (group,) = _wait_for_group(around, 4)
        around.adapter.CompleteGroups(adapter_pb2.ChosenRequest(ids=[group]))
        watch = client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(after_event=-1), timeout=PATIENCE)
        job = ended(client, next(watch).job.id)
        watch.cancel()
        assert job.state == jobs_pb2.JOB_STATE_FINISHED
        (item,) = job.items
        assert [(s.series_instance_uid, s.instances) for s in item.inputs] == [
            ("1.2.9", 2),
            ("1.2.1", 2),
        ]
        manifest = json.loads((Path(job.output_folder).parent / "job.json").read_text())
        order = [file["sop_instance_uid"] for s in manifest["inputs"] for file in s["files"]]
        assert order == [str(study[n].SOPInstanceUID) for n in (2, 0, 3, 1)]
        status = around.adapter.GetStatus(adapter_pb2.GetStatusRequest())
        assert (status.platform, list(status.attention)) == (far.grpc, [])
        waiting = around.adapter.ListSubmissions(adapter_pb2.ListSubmissionsRequest())
        assert list(waiting.submissions) == []
        listed_here = near.run("jobs", "list", "--json")
        assert json.loads(listed_here.stdout)["id"] == job.id
        assert len(list((far.folder / "data" / "platform" / "uploads").iterdir())) == 4
    assert files_in(near.folder / "data" / "spool" / "instances") == []
    assert not list((near.folder / "data" / "platform" / "jobs").iterdir())


def _wait_for_group(client: Client, instances: int) -> list[str]:
    """Ask for the groups until they hold so many instances, and return their ids."""
    for _ in range(10_000):
        groups = client.adapter.ListGroups(adapter_pb2.ListGroupsRequest()).groups
        if sum(group.instances for group in groups) == instances:
            break
    return [group.id for group in groups]


def test_r16_a_platform_that_is_down_is_waited_for(tmp_path: Path) -> None:
    """A submission waits, visible, with growing pauses, and is accepted when the platform is up."""
    port, clock = free_port(), ManualClock()
    with adapter(tmp_path, port, clock) as made:
        send_study(made, clock)
        waiting = unsettled(made, attempts=1)
        assert (waiting.state, f"127.0.0.1:{port}" in waiting.error) == ("pending", True)
        assert 0.5 <= (waiting.ready_at - clock.now()).total_seconds() <= 1
        clock.advance(1)
        waiting = unsettled(made, attempts=2)
        assert 1 <= (waiting.ready_at - clock.now()).total_seconds() <= 2
        assert made.service.status().attention == (
            "1 submission is waiting for the platform: see `submissions list`",
        )
        for attempt in (3, 4, 5):
            clock.advance(300)
            unsettled(made, attempts=attempt)
        assert len(files(made)) == 1
        with platform(tmp_path, port) as far, Client(far, known(tmp_path)) as client:
            # gRPC itself finds the platform again a little later than it is up.
            for attempt in range(5, 1000):
                clock.advance(300)
                if not _waits(made, attempt):
                    break
            settled(made)
            watch = client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(after_event=-1))
            assert ended(client, next(watch).job.id).state == jobs_pb2.JOB_STATE_FINISHED
            watch.cancel()
    assert len(jobs_of(tmp_path)) == 1


def _waits(made: Running, attempt: int) -> bool:
    """Wait for one more attempt; True when the submission still waits after it."""

    def look() -> str:
        with made.service.ledger.read() as tx:
            found = submissions.listed(tx)
        if not found:
            return "accepted"
        return "waits" if found[0].attempts > attempt else ""

    return made.wait_for(look) == "waits"


def test_a_refused_submission_is_parked_until_a_person_decides(tmp_path: Path) -> None:
    """A pipeline that the platform lacks parks the submission with its files.

    A retry submits it once the platform has the pipeline; another is discarded, and its files go.
    """
    port, clock = free_port(), ManualClock()
    with adapter(tmp_path, port, clock) as made:
        operations = made.service._adapter_operations().submissions  # noqa: SLF001 - what gRPC calls
        with platform(tmp_path, port, OTHER):
            send_study(made, clock)
            parked = unsettled(made, state="parked")
            assert parked.error == "the platform has no pipeline 'copy'; it has other"
            clock.advance(100_000)
            assert len(files(made)) == 1
            assert made.service.status().attention == (
                "1 submission is parked: see why in `submissions list`",
            )
            operations.retry(LOCAL, [parked.id])
            assert unsettled(made, state="parked").attempts == 1
            operations.discard(LOCAL, [parked.id])
            settled(made)
            send_study(made, clock)
            parked = unsettled(made, state="parked")
        with platform(tmp_path, port):
            for _ in range(100):
                operations.retry(LOCAL, [parked.id])
                if not _waits(made, 0):
                    break
            settled(made)
    (job,) = jobs_of(tmp_path)
    assert (job.pipeline, job.state in {*TERMINAL, "in_queue", "processing"}) == ("copy", True)


def test_a_lost_file_parks_its_submission(tmp_path: Path) -> None:
    """A file that is gone from the adapter's disk is told to people, not retried for ever."""
    port, clock = free_port(), ManualClock()
    with adapter(tmp_path, port, clock) as made, platform(tmp_path, port):
        assert send(made.port, [make_instance()]) == [0]
        made.grouped(1)
        files(made)[0].unlink()
        clock.advance(5)
        parked = unsettled(made, state="parked")
    assert "No such file or directory" in parked.error


class Proxy(jobs_pb2_grpc.JobServiceServicer):
    """Forwards to a platform, and loses the answers of some submissions after it was made."""

    def __init__(self, client: Client, losses: list[grpc.StatusCode], pipelines: set[str]) -> None:
        self._client = client
        self._losses = losses
        self._pipelines = pipelines
        self.submitted: list[tuple[str, str]] = []

    def FindMissingInstances(  # noqa: N802 - the API's name
        self, request: jobs_pb2.FindMissingInstancesRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.FindMissingInstancesResponse:
        """Forward."""
        del context
        return self._client.jobs.FindMissingInstances(request)

    def UploadInstance(  # noqa: N802 - the API's name
        self,
        request_iterator: Iterator[jobs_pb2.UploadInstanceRequest],
        context: grpc.ServicerContext,
    ) -> jobs_pb2.UploadInstanceResponse:
        """Forward."""
        del context
        return self._client.jobs.UploadInstance(request_iterator)

    def SubmitJob(  # noqa: N802 - the API's name
        self, request: jobs_pb2.SubmitJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.Job:
        """Forward, then perhaps break."""
        job = self._client.jobs.SubmitJob(request)
        self.submitted.append((request.pipeline, request.request_id))
        if request.pipeline in self._pipelines and self._losses:
            context.abort(self._losses.pop(), "the answer is lost")
        return job


@contextmanager
def proxied(
    folder: Path, far: str, port: int, losses: list[grpc.StatusCode], *lossy: str
) -> Iterator[Proxy]:
    """Serve a platform on another port, losing answers."""
    with Client(far, known(folder)) as client:
        # Abstract for the type checker alone: it serves as much as an adapter calls.
        proxy = Proxy(client, losses, set(lossy))  # type: ignore[abstract]
        server = grpc.server(ThreadPoolExecutor(4), options=options())
        jobs_pb2_grpc.add_JobServiceServicer_to_server(proxy, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        yield proxy
        server.stop(0).wait()


@pytest.mark.parametrize("loss", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_r16_a_lost_answer_makes_no_second_job(tmp_path: Path, loss: grpc.StatusCode) -> None:
    """When the connection breaks after the commit the same request is made again: one job."""
    port, clock = free_port(), ManualClock()
    with (
        platform(tmp_path, 0) as far,
        proxied(tmp_path, far, port, [loss], "copy") as proxy,
        adapter(tmp_path, port, clock) as made,
    ):
        send_study(made, clock, (1, 2))
        waiting = unsettled(made, attempts=1)
        assert loss.name in waiting.error
        assert len(files(made)) == 2
        clock.advance(1)
        settled(made)
    assert proxy.submitted == [("copy", waiting.id)] * 2
    (job,) = jobs_of(tmp_path)
    assert job.instances == 2


def test_r16_what_was_accepted_is_never_submitted_again(tmp_path: Path) -> None:
    """Of three jobs of a group one fails to arrive: only that one is tried again."""
    port, clock = free_port(), ManualClock()
    three = "".join(
        f"  {name}: {{command: ['true'], resources: {{memory: 1MiB}}}}\n" for name in "abc"
    )
    near = ADAPTER.replace("PORT", str(port))
    near = near.replace("{pipeline-copy: copy}", "{pipeline-a: a, pipeline-b: b, pipeline-c: c}")
    (tmp_path / "adapter").mkdir()
    with (
        platform(tmp_path, 0, PLATFORM + three) as far,
        proxied(tmp_path, far, port, [grpc.StatusCode.UNAVAILABLE] * 2, "b") as proxy,
        running(tmp_path / "adapter", near, clock) as made,
    ):
        send_study(made, clock)
        for attempt in (1, 2):
            assert unsettled(made, attempts=attempt).pipeline == "b"
            assert len(files(made)) == 1
            clock.advance(300)
        settled(made)
    assert sorted(pipeline for pipeline, _ in proxy.submitted) == ["a", "b", "b", "b", "c"]
    assert sorted(job.pipeline for job in jobs_of(tmp_path)) == ["a", "b", "c"]
