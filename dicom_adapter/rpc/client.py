"""Calls a server of the API, over TCP or a Unix socket."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import grpc

from dicom_adapter.errors import NotFoundError
from dicom_adapter.model import InputFile, JobRequest, RemoteJob, Requirements
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.convert_requirements import from_requirements
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.rpc.status import from_error
from dicom_adapter.v1 import jobs_pb2, pipelines_pb2
from dicom_adapter.v1.adapter_pb2_grpc import AdapterServiceStub
from dicom_adapter.v1.audit_pb2_grpc import AuditServiceStub
from dicom_adapter.v1.composition_pb2_grpc import CompositionServiceStub
from dicom_adapter.v1.jobs_pb2_grpc import JobServiceStub
from dicom_adapter.v1.pipelines_pb2_grpc import PipelineServiceStub
from dicom_adapter.v1.platform_pb2_grpc import PlatformServiceStub
from dicom_adapter.v1.tokens_pb2_grpc import TokenServiceStub
from dicom_adapter.v1.webhooks_pb2_grpc import WebhookServiceStub

CALL_SECONDS = 60.0
UPLOAD_CHUNK = 1024 * 1024
# Bytes a second; an upload, or an output, that is slower is broken off and begun again.
SLOWEST_TRANSFER = 256 * 1024
# A job of 100,000 instances is a request of some 15 MB; gRPC's own limit is 4 MiB.
LARGEST_MESSAGE = 64 * 1024 * 1024


def options() -> list[tuple[str, int]]:
    """Return the options of a channel or server."""
    return [
        ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ("grpc.max_send_message_length", LARGEST_MESSAGE),
        # A platform that comes back is to be found soon, not after gRPC's two minutes.
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.enable_http_proxy", 0),
        # A port that is taken is to be refused, not shared with whoever has it.
        ("grpc.so_reuseport", 0),
    ]


class Client:
    """A connection to a server of the API; close it, or use it as a context."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self.address = address
        self._credentials = credentials or Credentials()
        self._connect()

    def _connect(self) -> None:
        # Of its own: by default, gRPC would give a new channel the connection of the one before.
        own = ("grpc.use_local_subchannel_pool", 1)
        self._channel = self._credentials.channel(self.address, [*options(), own])
        self.jobs = JobServiceStub(self._channel)
        self.pipelines = PipelineServiceStub(self._channel)
        self.platform = PlatformServiceStub(self._channel)
        self.adapter = AdapterServiceStub(self._channel)
        self.audit = AuditServiceStub(self._channel)
        self.composition = CompositionServiceStub(self._channel)
        self.tokens = TokenServiceStub(self._channel)
        self.webhooks = WebhookServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise our own exceptions instead of gRPC's, for the calls inside.

        Raises:
            UnavailableError: the server does not answer, or cannot serve the call now.
            DicomAdapterError: the server refuses the call, by the kind of refusal.
        """
        try:
            yield
        except grpc.RpcError as error:
            raise from_error(error, self.address) from error

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """As `errors`; where the server is silent, the next call goes by another connection.

        One that a firewall on the way has forgotten swallows every call, and never breaks.
        """
        with self.errors():
            try:
                yield
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    self.close()
                    self._connect()
                raise

    def missing(self, files: Sequence[InputFile]) -> list[InputFile]:
        """Return those of the files that the server does not have; raises as `errors` does."""
        request = jobs_pb2.FindMissingInstancesRequest(instances=map(convert.to_reference, files))
        with self._answered():
            answer = self.jobs.FindMissingInstances(request, timeout=CALL_SECONDS)
        return list(map(convert.from_reference, answer.missing))

    def upload(self, file: InputFile, path: Path) -> None:
        """Send the file of an instance; raises as `errors` does, or OSError."""
        # Opened here, not within the call: gRPC would tell its error as one of the server's.
        with path.open("rb") as stream, self._answered():
            size = os.fstat(stream.fileno()).st_size
            self.jobs.UploadInstance(
                _upload(file, stream, size), timeout=CALL_SECONDS + size / SLOWEST_TRANSFER
            )

    def requirements(self, pipeline: str) -> Requirements | None:
        """Return what a pipeline requires; None where it takes whatever comes.

        Raises as `errors` does.
        """
        request = pipelines_pb2.GetPipelineRequest(name=pipeline)
        with self._answered():
            try:
                found = self.pipelines.GetPipeline(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    # A server of jobs alone: it has no way to say what it requires.
                    return None
                raise
        return from_requirements(found.requires) if found.HasField("requires") else None

    def submit(self, request: JobRequest) -> str:
        """Submit a job and return its id; raises as `errors` does."""
        return str(self.submitted(request).id)

    def submitted(self, request: JobRequest) -> jobs_pb2.Job:
        """Submit a job and return it as the API has it; raises as `errors` does."""
        with self._answered():
            return self.jobs.SubmitJob(convert.to_request(request), timeout=CALL_SECONDS)

    def found(self, request_id: str) -> jobs_pb2.Job | None:
        """Return the job that a request has made already, if it has; raises as `errors` does."""
        request = jobs_pb2.GetJobRequest(request_id=request_id)
        try:
            with self._answered():
                return self.jobs.GetJob(request, timeout=CALL_SECONDS)
        except NotFoundError:
            return None

    def job(self, job_id: str = "", *, request_id: str = "") -> RemoteJob:
        """Return a job, by its id or the request id that made it; raises as `errors` does."""
        request = jobs_pb2.GetJobRequest(job=job_id, request_id=request_id)
        with self._answered():
            return convert.from_job(self.jobs.GetJob(request, timeout=CALL_SECONDS))

    def cancel(self, job_id: str, why: str) -> RemoteJob:
        """Ask for the end of a job, and return it as it is then; raises as `errors` does."""
        request = jobs_pb2.CancelJobRequest(job=job_id, reason=why)
        with self._answered():
            return convert.from_job(self.jobs.CancelJob(request, timeout=CALL_SECONDS))

    def changes(self, job_id: str, seconds: float) -> Iterator[RemoteJob]:
        """Yield a job as it stands, and at each change, until it has ended or for a while.

        Raises as `errors` does.
        """
        request = jobs_pb2.WatchJobsRequest(job=job_id)
        heard = False
        with self._answered():
            try:
                for change in self.jobs.WatchJobs(request, timeout=seconds):
                    heard = True
                    yield convert.from_job(change.job)
            except grpc.RpcError as error:
                # What it had to say was said: only one that says nothing at all is silent.
                if not heard or error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise

    def log(self, job_id: str) -> Iterator[bytes]:
        """Yield a job's log from its begin to the job's end; raises as `errors` does."""
        request = jobs_pb2.StreamLogsRequest(job=job_id, follow=True)
        with self.errors():
            for chunk in self.jobs.StreamLogs(request):
                yield chunk.data

    def output(self, job_id: str, path: str, size: int = 0) -> Iterator[bytes]:
        """Yield one of a job's outputs, which is told to be so long; raises as `errors` does."""
        seconds = CALL_SECONDS + size / SLOWEST_TRANSFER
        request = jobs_pb2.StreamOutputRequest(job=job_id, path=path)
        with self.errors():
            for chunk in self.jobs.StreamOutput(request, timeout=seconds):
                yield chunk.data


def _upload(
    file: InputFile, stream: BinaryIO, size: int
) -> Iterator[jobs_pb2.UploadInstanceRequest]:
    header = jobs_pb2.UploadInstanceRequest.Header(instance=convert.to_reference(file), size=size)
    yield jobs_pb2.UploadInstanceRequest(header=header)
    while chunk := stream.read(UPLOAD_CHUNK):
        yield jobs_pb2.UploadInstanceRequest(chunk=chunk)
