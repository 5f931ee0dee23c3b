"""How jobs are made, and of what: gRPC, and so the adapter and the command line, call these."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dicom_adapter.clock import Clock
from dicom_adapter.config import Pipeline
from dicom_adapter.config import Resources as PipelineResources
from dicom_adapter.config import Retries as PipelineRetries
from dicom_adapter.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    UncertainError,
    WrongStateError,
)
from dicom_adapter.ledger import Ledger, jobs, queue, stock
from dicom_adapter.ledger.queue import Origin
from dicom_adapter.lifecycle import Action, CancelPolicy, JobState, role_for
from dicom_adapter.model import (
    DEFAULT_PROJECT,
    LOCAL,
    Caller,
    InputFile,
    ItemState,
    Job,
    JobInput,
    JobItem,
    JobRequest,
    JobStep,
    Resources,
    Retries,
    RunRules,
    StepState,
    safe_name,
    suffixed_name,
)
from dicom_adapter.platform.pipelines import Definition, PipelineOperations
from dicom_adapter.platform.projects import Projects
from dicom_adapter.platform.queue import JobQueue
from dicom_adapter.platform.requests import check_request, digest_of, inputs_digest
from dicom_adapter.platform.resolving import Resolver
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.workspace import BrokenInputError, Sources, Workspaces

log = structlog.get_logger()


class JobOperations:
    """Takes instances, and makes jobs of them."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        pipelines: PipelineOperations,
        workspaces: Workspaces,
        uploads: Uploads,
        *,
        projects: Projects,
        queue: JobQueue,
        resolver: Resolver,
        locate: Callable[[str], Path],
        submitted: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._projects = projects
        self._queue = queue
        self._resolver = resolver
        self._pipelines = pipelines
        self._workspaces = workspaces
        self._uploads = uploads
        self._locate = locate
        self._submitted = submitted
        self._ended = ended

    # Instances

    def missing(self, caller: Caller, files: Sequence[InputFile]) -> list[InputFile]:
        """Return those of the files that must be uploaded before a job can be made of them."""
        caller.check(role_for(Action.CREATE))
        with self._ledger.read() as tx:
            kept = self._kept(tx, files)
        absent = [file for file in files if file.key not in kept]
        return self._uploads.missing(absent) if absent else []

    def upload(self, caller: Caller, file: InputFile, size: int, chunks: Iterable[bytes]) -> None:
        """Store an instance; see `Uploads.receive`."""
        caller.check(role_for(Action.CREATE))
        self._uploads.receive(file, size, chunks)

    def _kept(self, tx: Connection, files: Sequence[InputFile]) -> dict[tuple[str, str], Path]:
        keys = stock.kept(tx, [file.instance_id for file in files])
        places = {key: self._locate(key[0]) for key in keys}
        # Looked for on the disk as well: a person may have removed it there.
        return {key: path for key, path in places.items() if path.exists()}

    def _places(self, files: Sequence[InputFile]) -> dict[tuple[str, str], Path]:
        with self._ledger.read() as tx:
            return {**self._uploads.places(tx, files), **self._kept(tx, files)}

    # Jobs

    def submit(self, caller: Caller, request: JobRequest) -> Job:
        """Make a job, durable with its inputs when this returns.

        The same request again returns the job that it made.

        Raises:
            InvalidArgumentError: a field is wrong; names it.
            NotFoundError: the platform has no such pipeline or project.
            PermissionDeniedError: the caller may not make jobs, or not in that project.
            AlreadyExistsError: the request id was used for another request.
            WrongStateError: an instance is not here; upload it and submit again.
        """
        caller.check(role_for(Action.CREATE))
        check_request(request)
        request = replace(request, project=self._project_for(caller, request))
        digest = digest_of(request)
        earlier = self._earlier(request, digest)
        if earlier is not None:
            return earlier
        # The adapter calls as this machine; what came in by an AE title is that one's doing, and
        # what was composed that of whoever did.
        asked = request.requested_by or request.ae_title
        actor = asked if caller == LOCAL and asked else caller.name
        origin = Origin(request.request_id, digest, actor)
        return self._made(request, self._pipelines.definition(request.pipeline), origin)

    def _project_for(self, caller: Caller, request: JobRequest) -> str:
        project = request.project or caller.project or DEFAULT_PROJECT
        caller.check_project(project)
        self._projects.check(project)
        return project

    def rerun(
        self,
        caller: Caller,
        id_or_name: str,
        *,
        name: str = "",
        request_id: str = "",
        latest: bool,
        reresolve: bool = False,
    ) -> Job:
        """Make another job of a job's definition and inputs, which stays as it is.

        Args:
            caller: Who wants it.
            id_or_name: The job, in whatever state.
            name: What the new one is called; as the other, with `rerun` behind it, if empty.
            request_id: As in `submit`; empty for one that is asked for once.
            latest: Run what the pipeline is now, instead of what it was then.
            reresolve: Take also what has come of its series since; see `Resolver.again`.

        Raises:
            NotFoundError: there is no such job, or no such pipeline any more.
            InvalidArgumentError: the name is the other's, or nothing here knows its series.
            WrongStateError: its inputs are not here any more, or not what its pipeline requires.
        """
        caller.check(role_for(Action.CREATE))
        with self._ledger.read() as tx:
            source = jobs.get(tx, id_or_name, caller.project)
            if source.is_unfit:
                raise WrongStateError(
                    f"the inputs of {source.name} are not what its pipeline requires: `jobs retry "
                    "--confirm` runs it all the same"
                )
            inputs = tuple(jobs.inputs_of(tx, source.id).values())
        if name and safe_name(name) == source.name:
            raise InvalidArgumentError("name", f"must be another than the job's own, {source.name}")
        request = _request_again(source, inputs, name=name, request_id=request_id)
        check_request(request)
        # Of what it was, not of what a series is by now: the same request again is the same then.
        more = ["reresolve"] if reresolve else []
        digest = digest_of(request, source.id, str(latest), *more)
        earlier = self._earlier(request, digest)
        if earlier is not None:
            return earlier
        definition = self._pipelines.definition(source.pipeline) if latest else _pinned(source)
        why = f"rerun of {source.name}"
        # It has them also when nothing else has.
        own = self._own(source, inputs)
        if reresolve:
            now = tuple(self._resolver.again(source, series, own) for series in inputs)
            request = replace(request, items=now)
            why = f"{why}, re-resolved"
        origin = Origin(request.request_id, digest, caller.name, why)
        return self._made(request, definition, origin, source, own)

    def _own(self, source: Job, items: Sequence[Sequence[JobInput]]) -> Sources:
        """Return where a job's own input files lie."""
        workspace, count = self._workspaces.of(source.id), len(source.items)
        found: dict[tuple[str, str], Path] = {}
        for item, inputs in zip(source.items, items, strict=True):
            found |= workspace.of_item(item, count).sources(inputs)
        return found

    def _made(
        self,
        request: JobRequest,
        definition: Definition,
        origin: Origin,
        source: Job | None = None,
        own: Sources = MappingProxyType({}),
    ) -> Job:
        job = self._make(request, definition, origin, source, own)
        log.info(
            "job submitted",
            action="job.submitted",
            job=job.name,
            pipeline=job.pipeline,
            instances=job.instances,
            priority=job.priority.label,
        )
        if job.is_unfit:
            log.error("job failed: its inputs are not what its pipeline requires",
                      action="job.failed", job=job.name, reason=job.reason)  # fmt: skip
            self._ended()
        else:
            self._submitted()
        return job

    def _make(
        self,
        request: JobRequest,
        definition: Definition,
        origin: Origin,
        source: Job | None,
        own: Sources,
    ) -> Job:
        job = _new_job(request, definition, self._clock.now(), source)
        workspace, places = self._workspaces.of(job.id), {**self._places(request.files), **own}
        count, digest = len(request.items), inputs_digest(request.items)
        try:
            for item, inputs in zip(job.items, request.items, strict=True):
                workspace.of_item(item, count).take_inputs(inputs, places)
            with self._ledger.write() as tx:
                return self._added(tx, job, request, origin, digest)
        except IntegrityError:
            self._workspaces.remove(job.id)
            earlier = self._earlier(request, origin.request_sha256)
            if earlier is None:
                raise
            # The same request came twice at once, and the other one was first.
            return earlier
        except UncertainError:
            # A crash may make the job after all: the next start knows.
            raise
        except BrokenInputError as error:
            self._workspaces.remove(job.id)
            again = "upload it, then submit again" if source is None else "send the study again"
            raise WrongStateError(f"{error}: {again}") from error
        except BaseException:
            self._workspaces.remove(job.id)
            raise

    def _added(
        self, tx: Connection, job: Job, request: JobRequest, origin: Origin, digest: str
    ) -> Job:
        if not request.unmet:
            self._queue.check_room(tx, job)
        if request.refuse_duplicate:
            _refuse_duplicate(jobs.doubles(tx, job, digest))
        made = queue.add(tx, job, request.items, origin, digest)
        if not request.unmet:
            return made
        # In the same transaction: nobody can take it off the queue in between.
        return queue.refuse(tx, made.id, request.unmet, at=job.created_at)

    def _earlier(self, request: JobRequest, digest: str) -> Job | None:
        with self._ledger.read() as tx:
            found = jobs.of_request(tx, request.request_id)
        if found is None:
            return None
        job, earlier_digest = found
        if earlier_digest != digest:
            raise AlreadyExistsError(
                f"request_id '{request.request_id}' has made the job {job.name} of another "
                "request: use an id of its own for each"
            )
        return job


def _refuse_duplicate(doubles: Sequence[tuple[str, str]]) -> None:
    if doubles:
        told = ", ".join(f"{name} ({job_id})" for job_id, name in doubles)
        raise AlreadyExistsError(
            f"the same pipeline has the same instances already in {told}: ask for a second job by "
            "--force, where it is meant"
        )


def _new_job(request: JobRequest, definition: Definition, now: datetime, source: Job | None) -> Job:
    pipeline = definition.pipeline
    resources = pipeline.resources
    return Job(
        id=uuid4().hex,
        name=safe_name(request.name),
        project=request.project,
        pipeline=pipeline.name,
        pipeline_version=definition.version,
        state=JobState.IN_QUEUE,
        reason="",
        priority=request.priority,
        ae_title=request.ae_title,
        instances=len(request.files),
        created_at=now,
        started_at=None,
        finished_at=None,
        arguments=request.arguments,
        supersedes=request.supersedes,
        rerun_of=None if source is None else source.id,
        command=pipeline.command,
        image=pipeline.image or "",
        image_id=definition.image_id,
        timeout=pipeline.timeout,
        # To another platform it is a request, and how that handles it is its own.
        cancel_policy=CancelPolicy.REQUEST if pipeline.is_remote else pipeline.cancel,
        rules=replace(_rules(pipeline), fail_fast=request.fail_fast),
        requested=Resources(resources.cpus, resources.memory, resources.gpus),
        used=None,
        attempts=0,
        exit_code=None,
        error="",
        items=tuple(
            JobItem(uuid4().hex, number, ItemState.IN_QUEUE)
            for number in range(1, len(request.items) + 1)
        ),
        steps=tuple(JobStep(name, StepState.WAITING, 0.0) for name in pipeline.steps),
    )


def _rules(pipeline: Pipeline) -> RunRules:
    return RunRules(
        log_size=pipeline.log_size,
        queue_timeout=pipeline.queue_timeout,
        silence_timeout=pipeline.silence_timeout,
        retries=Retries(**pipeline.retries.model_dump()),
        executor=pipeline.executor,
        remote_pipeline=(pipeline.remote_pipeline or pipeline.name) if pipeline.is_remote else "",
    )


def _pinned(job: Job) -> Definition:
    """Return what a job runs, as it was when the job was made."""
    requested = job.requested
    pipeline = Pipeline(
        name=job.pipeline,
        executor=job.rules.executor,
        remote_pipeline=job.rules.remote_pipeline or None,
        command=job.command,
        image=job.image or None,
        resources=PipelineResources(
            cpus=requested.cpus, memory=requested.memory, gpus=requested.gpus
        ),
        timeout=job.timeout,
        cancel=job.cancel_policy,
        log_size=job.rules.log_size,
        queue_timeout=job.rules.queue_timeout,
        silence_timeout=job.rules.silence_timeout,
        retries=PipelineRetries(**asdict(job.rules.retries)),
        steps=tuple(step.name for step in job.steps),
    )
    return Definition(pipeline, job.image_id)


def _request_again(
    source: Job, items: tuple[tuple[JobInput, ...], ...], *, name: str, request_id: str
) -> JobRequest:
    return JobRequest(
        request_id=request_id or uuid4().hex,
        name=name or suffixed_name(source.name, "rerun"),
        pipeline=source.pipeline,
        priority=source.priority,
        ae_title=source.ae_title,
        project=source.project,
        items=items,
        arguments=source.arguments,
        fail_fast=source.rules.fail_fast,
    )
