"""Serves the API; each method converts, calls an operation, and converts back."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dicom_adapter.access import Access
from dicom_adapter.audit import AuditTrail
from dicom_adapter.compose.composing import Composing
from dicom_adapter.errors import InvalidArgumentError, StartError, UnavailableError
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.model import Job
from dicom_adapter.platform.embedded import PlatformOperations
from dicom_adapter.platform.selection import Selection
from dicom_adapter.retrieve.fetching import Fetching
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.adapter import AdapterOperations, AdapterServicer
from dicom_adapter.rpc.audit import AuditServicer
from dicom_adapter.rpc.client import options
from dicom_adapter.rpc.composition import CompositionServicer
from dicom_adapter.rpc.context import Call, Callers
from dicom_adapter.rpc.credentials import ServerTls
from dicom_adapter.rpc.interceptor import Entrance
from dicom_adapter.rpc.pipelines import PipelineServicer
from dicom_adapter.rpc.platform import PlatformServicer
from dicom_adapter.rpc.tokens import TokenServicer
from dicom_adapter.rpc.webhooks import WebhookServicer
from dicom_adapter.v1 import (
    adapter_pb2_grpc,
    audit_pb2_grpc,
    composition_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    pipelines_pb2_grpc,
    platform_pb2_grpc,
    tokens_pb2_grpc,
    webhooks_pb2_grpc,
)
from dicom_adapter.webhooks.operations import WebhookOperations

THREADS = 32
# A stream holds a thread while it lasts: those who watch must leave some for those who submit.
STREAMS = 24


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Serves JobService."""

    def __init__(self, platform: PlatformOperations) -> None:
        self._operations = platform.jobs
        self._views = platform.views
        self._control = platform.control

    def _job(self, job: Job) -> jobs_pb2.Job:
        there = job.outputs and "outputs" not in job.reclaimed
        outputs = str(self._views.workspace(job).output) if there else ""
        return convert.to_job(job, outputs, str(self._views.provenance_of(job) or ""))

    def FindMissingInstances(  # noqa: N802 - the API's name
        self, request: jobs_pb2.FindMissingInstancesRequest, call: Call
    ) -> jobs_pb2.FindMissingInstancesResponse:
        """Return what must be uploaded first."""
        missing = self._operations.missing(
            call.caller, list(map(convert.from_reference, request.instances))
        )
        return jobs_pb2.FindMissingInstancesResponse(missing=map(convert.to_reference, missing))

    def UploadInstance(  # noqa: N802 - the API's name
        self, request_iterator: Iterator[jobs_pb2.UploadInstanceRequest], call: Call
    ) -> jobs_pb2.UploadInstanceResponse:
        """Take one instance."""
        first = next(request_iterator, None)
        if first is None or not first.HasField("header"):
            raise InvalidArgumentError("header", "must come first")
        header = first.header
        instance = convert.from_reference(header.instance)
        self._operations.upload(call.caller, instance, header.size, _chunks(request_iterator))
        return jobs_pb2.UploadInstanceResponse()

    def SubmitJob(  # noqa: N802 - the API's name
        self, request: jobs_pb2.SubmitJobRequest, call: Call
    ) -> jobs_pb2.Job:
        """Make a job."""
        return self._job(self._operations.submit(call.caller, convert.from_request(request)))

    def GetJob(self, request: jobs_pb2.GetJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Return one job."""
        if request.request_id:
            return self._job(self._views.of_request(call.caller, request.request_id))
        return self._job(self._views.get(call.caller, request.job))

    def GetJobHistory(  # noqa: N802 - the API's name
        self, request: jobs_pb2.GetJobRequest, call: Call
    ) -> jobs_pb2.JobHistory:
        """Return the moves of a job."""
        found = self._views.history(call.caller, request.job)
        return jobs_pb2.JobHistory(events=map(convert.to_event, found))

    def StreamProvenance(  # noqa: N802 - the API's name
        self, request: jobs_pb2.StreamProvenanceRequest, call: Call
    ) -> Iterator[jobs_pb2.ProvenanceChunk]:
        """Stream how a job's outputs were made."""
        for chunk in self._views.provenance(call.caller, request.job, request.item):
            yield jobs_pb2.ProvenanceChunk(data=chunk)

    def ListJobs(  # noqa: N802 - the API's name
        self, request: jobs_pb2.ListJobsRequest, call: Call
    ) -> jobs_pb2.ListJobsResponse:
        """Return a page of jobs."""
        wanted = JobFilter(
            states=convert.from_states(request.states),
            project=request.project,
            pipeline=request.pipeline,
            ae_title=request.ae_title,
        )
        page = self._views.listed(call.caller, wanted, request.page_size, request.page_token)
        return jobs_pb2.ListJobsResponse(
            jobs=map(self._job, page.jobs), next_page_token=page.next_token
        )

    def CancelJob(self, request: jobs_pb2.CancelJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Cancel a job, or items of it."""
        if request.items:
            if request.only_if_queued:
                raise InvalidArgumentError("only_if_queued", "is of whole jobs, not of items")
            job = self._control.cancel_items(
                call.caller, request.job, request.items, why=request.reason
            )
            return self._job(job)
        job = self._control.cancel(
            call.caller,
            request.job,
            why=request.reason,
            only_if_queued=request.only_if_queued,
        )
        return self._job(job)

    def RetryJob(self, request: jobs_pb2.RetryJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Have a job run again."""
        job = self._control.retry(
            call.caller,
            request.job,
            selection=Selection(
                tuple(request.items),
                convert.from_item_states(request.item_states),
                request.full,
            ),
            why=request.reason,
            confirm=request.confirm,
            dry_run=request.dry_run,
        )
        return self._job(job)

    def RerunJob(self, request: jobs_pb2.RerunJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Make another job of a job's definition and inputs."""
        job = self._operations.rerun(
            call.caller,
            request.job,
            name=request.name,
            request_id=request.request_id,
            latest=request.latest,
            reresolve=request.reresolve,
        )
        return self._job(job)

    def InvalidateJob(  # noqa: N802 - the API's name
        self, request: jobs_pb2.InvalidateJobRequest, call: Call
    ) -> jobs_pb2.Job:
        """Declare the outputs of a job wrong."""
        job = self._control.invalidate(call.caller, request.job, why=request.reason)
        return self._job(job)

    def DeleteJob(self, request: jobs_pb2.DeleteJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Delete a job."""
        job = self._control.delete(call.caller, request.job, why=request.reason)
        return convert.to_job(job, "", "")

    def WatchJobs(  # noqa: N802 - the API's name
        self, request: jobs_pb2.WatchJobsRequest, call: Call
    ) -> Iterator[jobs_pb2.JobChange]:
        """Stream changes of jobs."""
        changes = self._views.watch(call.caller, request.job, request.after_event, call.is_active)
        for change in changes:
            yield jobs_pb2.JobChange(
                event=change.number,
                job_id=change.job_id,
                job=None if change.job is None else self._job(change.job),
                move=None if change.move is None else convert.to_event(change.move),
            )

    def StreamLogs(  # noqa: N802 - the API's name
        self, request: jobs_pb2.StreamLogsRequest, call: Call
    ) -> Iterator[jobs_pb2.LogChunk]:
        """Stream a job's log."""
        chunks = self._views.logs(
            call.caller, request.job, follow=request.follow, active=call.is_active
        )
        for chunk in chunks:
            yield jobs_pb2.LogChunk(data=chunk)

    def StreamOutput(  # noqa: N802 - the API's name
        self, request: jobs_pb2.StreamOutputRequest, call: Call
    ) -> Iterator[jobs_pb2.OutputChunk]:
        """Stream one output of a job."""
        for chunk in self._views.output(call.caller, request.job, request.path):
            yield jobs_pb2.OutputChunk(data=chunk)


def _chunks(messages: Iterator[jobs_pb2.UploadInstanceRequest]) -> Iterator[bytes]:
    try:
        for message in messages:
            if not message.HasField("chunk"):
                raise InvalidArgumentError("chunk", "must be in every message after the header")
            yield message.chunk
    except grpc.RpcError as error:
        raise UnavailableError("the upload broke off") from error


def _started_pool() -> ThreadPoolExecutor:
    """Return a pool all of whose threads are there.

    One that it made when a call comes may be one too many for the machine: then gRPC's own thread
    would end with the error, and no call be answered any more.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
    all_there = threading.Barrier(THREADS)
    try:
        for running in [pool.submit(all_there.wait) for _ in range(THREADS)]:
            running.result()
    except BaseException:
        # Those that are there must not wait for the others for ever.
        all_there.abort()
        raise
    return pool


class Server:
    """A gRPC server of whichever services this process offers, with health and reflection."""

    def __init__(
        self,
        platform: PlatformOperations | None,
        adapter: AdapterOperations | None,
        access: Access,
        *,
        audit: AuditTrail | None = None,
        webhooks: WebhookOperations | None = None,
        composing: Composing | None = None,
        fetching: Fetching | None = None,
    ) -> None:
        self._pool = _started_pool()
        self._server = grpc.server(
            self._pool,
            interceptors=[Entrance(Callers(access), STREAMS)],
            options=options(),
        )
        names = []
        if platform is not None:
            jobs_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(platform), self._server)
            pipelines_pb2_grpc.add_PipelineServiceServicer_to_server(
                PipelineServicer(platform.pipelines), self._server
            )
            platform_pb2_grpc.add_PlatformServiceServicer_to_server(
                PlatformServicer(platform.platform), self._server
            )
            names += ["JobService", "PipelineService", "PlatformService"]
        if adapter is not None:
            adapter_pb2_grpc.add_AdapterServiceServicer_to_server(
                AdapterServicer(adapter), self._server
            )
            names.append("AdapterService")
        if audit is not None:
            audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(audit), self._server)
            names.append("AuditService")
        tokens_pb2_grpc.add_TokenServiceServicer_to_server(TokenServicer(access), self._server)
        names.append("TokenService")
        if webhooks is not None:
            webhooks_pb2_grpc.add_WebhookServiceServicer_to_server(
                WebhookServicer(webhooks), self._server
            )
            names.append("WebhookService")
        if composing is not None and fetching is not None:
            composition_pb2_grpc.add_CompositionServiceServicer_to_server(
                CompositionServicer(composing, fetching), self._server
            )
            names.append("CompositionService")
        self._describe([f"dicom_adapter.v1.{name}" for name in names])

    def _describe(self, names: list[str]) -> None:
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in ("", *names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        described = [*names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(described, self._server)

    def listen(self, address: str, tls: ServerTls | None = None) -> int:
        """Add an address, HOST:PORT or unix:PATH, and return its port; 1 for a socket.

        Raises:
            StartError: it is taken or may not be opened.
        """
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.credentials)
        except RuntimeError as error:
            raise StartError(
                f"cannot listen on {address}: stop what uses it, or change grpc.listen"
            ) from error
        return int(port)

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self, grace: float) -> None:
        """Refuse new calls, and end those that last longer than `grace` seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        # Without waiting: a call that was cut off may not have noticed yet.
        self._pool.shutdown(wait=False)
