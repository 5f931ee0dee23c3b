"""What another platform refuses, or must not be believed, ends the job here, with the cure."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from dicom_adapter.platform import remote
from dicom_adapter.rpc.fetch import ForeignOutputError, checked
from dicom_adapter.v1 import jobs_pb2, jobs_pb2_grpc, tokens_pb2
from tests.platform.harness import wait_for_file
from tests.remote.harness import both, far, near, port_of, wire

ESCAPES = ("../stolen", "/stolen", "a/../../stolen", "a//b", ".", "", "a/./b", "nul\0")


def test_refusals_name_their_cures(tmp_path: Path) -> None:
    """No such pipeline there; a token that is none there: failed at once, with what to do."""
    with both(tmp_path) as (here, there):
        here.submit("unknown")
        mine = here.until_state("failed")
        address = f"127.0.0.1:{port_of(there)}"
        assert mine.reason == "pipeline_error"
        assert mine.error.startswith(
            f"at {address}: the platform has no pipeline 'unknown'; it has"
        )
        assert mine.error.endswith("; see pipelines.unknown.remote_pipeline")
        here.until_nothing_handed()
        (tmp_path / "token").write_text("dat_wrong")
        here.made.service.reload()
        here.submit("work", "second")
        mine = here.until_state("failed", name="second")
        assert mine.error.startswith(f"at {address}: ")
        assert "; see executors.far.token: `dicom-adapter tokens create --role op" in mine.error
        here.until_nothing_handed()
        assert not there.made.jobs()


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_leads_out_of_a_folder(path: str) -> None:
    """Nor one that would lie elsewhere than it says."""
    with pytest.raises(ForeignOutputError, match="has a path that no output can have"):
        checked(path)


class Scripted(jobs_pb2_grpc.JobServiceServicer):
    """Another server of JobService, which says that it has finished, and has an output."""

    def __init__(self) -> None:
        self.path, self.content, self.sha256 = "", b"x", sha256(b"x").hexdigest()
        self.asked: list[str] = []
        self.requests: list[str] = []
        self.losses = 0
        #: How often it is to be looked at before it has finished.
        self.looks = 0
        self.watches = 0

    def _job(self) -> jobs_pb2.Job:
        output = jobs_pb2.JobOutput(path=self.path, size=1, sha256=self.sha256)
        state = jobs_pb2.JOB_STATE_PROCESSING if self.looks else jobs_pb2.JOB_STATE_FINISHED
        return jobs_pb2.Job(id="1", name="n", state=state, outputs=[output])

    def FindMissingInstances(  # noqa: N802 - the API's name
        self, request: jobs_pb2.FindMissingInstancesRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.FindMissingInstancesResponse:
        """Have everything."""
        del request, context
        return jobs_pb2.FindMissingInstancesResponse()

    def SubmitJob(  # noqa: N802 - the API's name
        self, request: jobs_pb2.SubmitJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.Job:
        """Take it, and perhaps break before the answer."""
        self.requests.append(request.request_id)
        if self.losses:
            self.losses -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return self._job()

    def GetJob(  # noqa: N802 - the API's name
        self, request: jobs_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.Job:
        """Tell of it."""
        del request, context
        job = self._job()
        self.looks = max(0, self.looks - 1)
        return job

    def WatchJobs(  # noqa: N802 - the API's name
        self, request: jobs_pb2.WatchJobsRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.JobChange]:
        """Have no stream to spare."""
        del request
        self.watches += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "too many calls that stream at a time")
        yield jobs_pb2.JobChange()

    def StreamLogs(  # noqa: N802 - the API's name
        self, request: jobs_pb2.StreamLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.LogChunk]:
        """Have said something."""
        del request, context
        yield jobs_pb2.LogChunk(data=b"said\n")

    def StreamOutput(  # noqa: N802 - the API's name
        self, request: jobs_pb2.StreamOutputRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.OutputChunk]:
        """Give what it was told to give."""
        del context
        self.asked.append(request.path)
        yield jobs_pb2.OutputChunk(data=self.content)


@contextmanager
def scripted() -> Iterator[tuple[Scripted, int]]:
    """Serve it on a port."""
    # Abstract for the type checker alone: it serves as much as is called.
    servicer = Scripted()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(8))
    jobs_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    server.stop(0).wait()


def test_outputs_are_not_believed(tmp_path: Path) -> None:
    """A path that leads out of the folder, or other bytes than announced: nothing is written."""
    (tmp_path / "token").write_text("any")
    with scripted() as (there, port), near(tmp_path, port) as here:
        there.path = "sub/../../../stolen"
        here.submit("work", "escape")
        mine = here.until_state("failed", name="escape")
        assert (mine.reason, mine.outputs) == ("output_invalid", ())
        assert "has a path that no output can have" in mine.error
        assert not there.asked
        assert not list(tmp_path.rglob("stolen"))
        there.path, there.content = "sub/ok", b"y"
        here.submit("work", "other")
        mine = here.until_state("failed", name="other")
        assert "does not have the size and sha256 that were told of it" in mine.error


def test_a_platform_without_a_stream_to_spare_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be watched, it is asked now and then until it has finished."""
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.05)
    (tmp_path / "token").write_text("any")
    with scripted() as (there, port), near(tmp_path, port) as here:
        there.path, there.looks = "sub/ok", 4
        here.submit()
        assert here.until_state("finished").attempts == 1
        assert (there.looks, there.watches) == (0, 4)


def test_a_lost_answer_makes_no_second_job(tmp_path: Path) -> None:
    """The same request is made again, by an id that says which job and attempt it is of."""
    (tmp_path / "token").write_text("any")
    with scripted() as (there, port), near(tmp_path, port) as here:
        there.path, there.losses = "sub/ok", 1
        here.submit()
        mine = here.until_state("finished")
        assert there.requests == [f"{mine.id}-1"] * 2
        assert here.output(mine, "sub/ok") == b"x"


def test_a_new_token_is_taken_over_while_it_runs(tmp_path: Path) -> None:
    """A token that ends while the item runs there is not its end: a reload brings another."""
    with far(tmp_path) as there, wire(there) as way, near(tmp_path, way.port) as here:
        here.submit()
        wait_for_file(tmp_path / "study.up")
        mine = here.until_state("processing")
        here.until_said(mine, "said\n")
        token = there.made.token()
        there.client.tokens.RevokeToken(tokens_pb2.RevokeTokenRequest(name="adapter"))
        way.cut()
        way.mend()
        here.until_said(mine, "tried again until it succeeds")
        (tmp_path / "token").write_text(token)
        here.made.service.reload()
        (tmp_path / "study.go").touch()
        assert here.until_state("finished").attempts == 1
