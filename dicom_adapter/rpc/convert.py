"""Messages to frozen values and back; the only file that knows both."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from dicom_adapter.config import Pipeline
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import (
    WHOLE,
    Event,
    InputFile,
    InputSummary,
    ItemState,
    Job,
    JobInput,
    JobItem,
    JobOutput,
    JobRequest,
    JobStep,
    PlatformState,
    Priority,
    RemoteJob,
    Resources,
    ResourceUse,
    StepState,
)
from dicom_adapter.rpc.convert_requirements import to_requirements
from dicom_adapter.v1 import audit_pb2, jobs_pb2, pipelines_pb2, platform_pb2

_PRIORITIES: Mapping[Priority, jobs_pb2.Priority.ValueType] = {
    Priority.LOWER: jobs_pb2.PRIORITY_LOWER,
    Priority.NORMAL: jobs_pb2.PRIORITY_NORMAL,
    Priority.HIGHER: jobs_pb2.PRIORITY_HIGHER,
    Priority.IMMEDIATE: jobs_pb2.PRIORITY_IMMEDIATE,
}
_STATES: Mapping[JobState, jobs_pb2.JobState.ValueType] = {
    state: jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState
}


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    """Return a time as a message; None stays None, an absent field."""
    return None if moment is None else _stamp(moment)


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def from_timestamp(stamp: Timestamp) -> datetime:
    """Return a message as an aware time, UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def to_state(state: JobState) -> jobs_pb2.JobState.ValueType:
    """Return a job's state as the API's."""
    return _STATES[state]


def from_states(states: Iterable[jobs_pb2.JobState.ValueType]) -> tuple[JobState, ...]:
    """Return the API's states as values.

    Raises:
        InvalidArgumentError: one of them is not a state.
    """
    by_number = {number: state for state, number in _STATES.items()}
    try:
        return tuple(by_number[number] for number in states)
    except KeyError as error:
        raise InvalidArgumentError("states", f"{error} is not a state of a job") from error


def to_reference(file: InputFile) -> jobs_pb2.InstanceReference:
    """Return a file as the API names it."""
    return jobs_pb2.InstanceReference(
        id=file.instance_id, sha256=file.sha256, sop_instance_uid=file.sop_instance_uid
    )


def from_reference(reference: jobs_pb2.InstanceReference) -> InputFile:
    """Return what the API names as a value."""
    return InputFile(reference.id, reference.sha256, reference.sop_instance_uid)


def to_request(request: JobRequest) -> jobs_pb2.SubmitJobRequest:
    """Return a request for a job as the API's."""
    return jobs_pb2.SubmitJobRequest(
        request_id=request.request_id,
        name=request.name,
        pipeline=request.pipeline,
        priority=_PRIORITIES[request.priority],
        ae_title=request.ae_title,
        items=[
            jobs_pb2.JobItemRequest(inputs=map(_to_job_input, inputs)) for inputs in request.items
        ],
        fail_fast=request.fail_fast,
        arguments=request.arguments,
        supersedes_request_id=request.supersedes or "",
        project=request.project,
        refuse_duplicate=request.refuse_duplicate,
        requested_by=request.requested_by,
        unmet=request.unmet,
    )


def from_request(message: jobs_pb2.SubmitJobRequest) -> JobRequest:
    """Return the API's request as a value.

    Raises:
        InvalidArgumentError: the priority is none.
    """
    return JobRequest(
        request_id=message.request_id,
        name=message.name,
        pipeline=message.pipeline,
        priority=from_priority(message.priority),
        ae_title=message.ae_title,
        items=tuple(tuple(map(_from_job_input, item.inputs)) for item in message.items),
        fail_fast=message.fail_fast,
        arguments=dict(message.arguments),
        supersedes=message.supersedes_request_id or None,
        project=message.project,
        refuse_duplicate=message.refuse_duplicate,
        requested_by=message.requested_by,
        unmet=tuple(message.unmet),
    )


def from_item_states(states: Iterable[str]) -> tuple[ItemState, ...]:
    """Return words as states of items; InvalidArgumentError names those there are."""
    try:
        return tuple(map(ItemState, states))
    except ValueError as error:
        raise InvalidArgumentError("item_states", f"must be of {', '.join(ItemState)}") from error


def _to_job_input(series: JobInput) -> jobs_pb2.JobInput:
    return jobs_pb2.JobInput(
        study_instance_uid=series.study,
        series_instance_uid=series.series,
        range=series.range,
        instances=map(to_reference, series.files),
    )


def _from_job_input(series: jobs_pb2.JobInput) -> JobInput:
    return JobInput(
        study=series.study_instance_uid,
        series=series.series_instance_uid,
        range=series.range or WHOLE,
        files=tuple(map(from_reference, series.instances)),
    )


def to_priority(priority: Priority) -> jobs_pb2.Priority.ValueType:
    """Return a priority as the API's."""
    return _PRIORITIES[priority]


def from_priority(number: jobs_pb2.Priority.ValueType) -> Priority:
    """Return the API's priority as a value; InvalidArgumentError where it is none."""
    if number == jobs_pb2.PRIORITY_UNSPECIFIED:
        return Priority.NORMAL
    for priority, known in _PRIORITIES.items():
        if known == number:
            return priority
    raise InvalidArgumentError("priority", f"{number} is not a priority")


def to_job(job: Job, output_folder: str, provenance_file: str) -> jobs_pb2.Job:
    """Return a job as the API's; the paths are empty where nothing lies there."""
    return jobs_pb2.Job(
        id=job.id,
        name=job.name,
        project=job.project,
        pipeline=job.pipeline,
        pipeline_version=job.pipeline_version,
        state=_STATES[job.state],
        reason=job.reason,
        priority=_PRIORITIES[job.priority],
        ae_title=job.ae_title,
        instances=job.instances,
        created_at=to_timestamp(job.created_at),
        started_at=to_timestamp(job.started_at),
        finished_at=to_timestamp(job.finished_at),
        arguments=job.arguments,
        items=map(_to_item, job.items),
        steps=map(_to_step, job.steps),
        requested=_to_resources(job.requested),
        used=_to_use(job.used),
        attempts=job.attempts,
        exit_code=job.exit_code,
        error=job.error,
        supersedes=job.supersedes or "",
        rerun_of=job.rerun_of or "",
        superseded=[
            jobs_pb2.SupersededOutputs(attempt=attempt, outputs=map(_to_output, outputs))
            for attempt, outputs in sorted(job.superseded_outputs.items())
        ],
        retried=job.retried,
        phase=job.phase or "",
        ready_at=to_timestamp(job.ready_at),
        cancel_policy=job.cancel_policy,
        cancelled_from=None if job.cancelled_from is None else _STATES[job.cancelled_from],
        outputs=map(_to_output, job.outputs),
        image=job.image,
        image_id=job.image_id,
        executor=job.rules.executor,
        output_folder=output_folder,
        provenance_file=provenance_file,
        reclaimed={part: _stamp(at) for part, at in job.reclaimed.items()},
        fail_fast=job.rules.fail_fast,
        failing=any(item.state == ItemState.FAILED for item in job.items),
        item_counts=Counter(item.state for item in job.items),
        waiting=None if job.waiting is None else jobs_pb2.Waiting(**asdict(job.waiting)),
    )


def from_job(message: jobs_pb2.Job) -> RemoteJob:
    """Return a job that another platform tells of as a value."""
    states = {number: state for state, number in _STATES.items()}
    used = message.used
    return RemoteJob(
        id=message.id,
        name=message.name,
        pipeline_version=message.pipeline_version,
        # A state of a later version is one that goes on: its end will be told by one of these.
        state=states.get(message.state, JobState.PROCESSING),
        reason=message.reason,
        error=message.error,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        used=ResourceUse(used.cpu_seconds, used.max_rss_bytes, used.wall_seconds)
        if message.HasField("used")
        else None,
        steps=tuple(
            JobStep(
                step.name,
                StepState(step.state) if step.state in set(StepState) else StepState.RUNNING,
                step.progress,
            )
            for step in message.steps
        ),
        outputs=tuple(map(from_output, message.outputs)),
    )


def from_output(message: jobs_pb2.JobOutput) -> JobOutput:
    """Return one output as a value."""
    return JobOutput(message.path, message.size, message.sha256)


def to_platform(state: PlatformState) -> platform_pb2.Platform:
    """Return whether the platform starts jobs as the API's."""
    pause = state.paused
    return platform_pb2.Platform(
        paused=None
        if pause is None
        else platform_pb2.Pause(
            since=to_timestamp(pause.at), actor=pause.actor, reason=pause.reason
        ),
        running=state.running,
        waiting=state.waiting,
    )


def to_event(event: Event) -> jobs_pb2.Event:
    """Return a move as the API's."""
    return jobs_pb2.Event(
        number=event.number,
        at=to_timestamp(event.at),
        actor=event.actor,
        action=event.action,
        from_state=event.from_state,
        to_state=event.to_state,
        reason=event.reason,
    )


def to_audit_event(event: Event) -> audit_pb2.AuditEvent:
    """Return an event of whatever kind as the API's."""
    return audit_pb2.AuditEvent(
        number=event.number,
        at=to_timestamp(event.at),
        actor=event.actor,
        kind=event.kind,
        subject=event.subject,
        project=event.project,
        action=event.action,
        from_state=event.from_state,
        to_state=event.to_state,
        reason=event.reason,
    )


def _to_item(item: JobItem) -> jobs_pb2.JobItem:
    return jobs_pb2.JobItem(
        id=item.id,
        number=item.number,
        state=item.state,
        inputs=map(_to_input, item.inputs),
        reason=item.reason,
        error=item.error,
        exit_code=item.exit_code,
        started_at=to_timestamp(item.started_at),
        finished_at=to_timestamp(item.finished_at),
        used=None if item.used is None else jobs_pb2.ResourceUse(**asdict(item.used)),
    )


def _to_input(series: InputSummary) -> jobs_pb2.InputSummary:
    return jobs_pb2.InputSummary(
        study_instance_uid=series.study,
        series_instance_uid=series.series,
        range=series.range,
        instances=series.instances,
    )


def _to_step(step: JobStep) -> jobs_pb2.JobStep:
    return jobs_pb2.JobStep(name=step.name, state=step.state, progress=step.progress)


def _to_output(output: JobOutput) -> jobs_pb2.JobOutput:
    return jobs_pb2.JobOutput(path=output.path, size=output.size, sha256=output.sha256)


def _to_use(use: ResourceUse | None) -> jobs_pb2.ResourceUse | None:
    if use is None:
        return None
    return jobs_pb2.ResourceUse(
        cpu_seconds=use.cpu_seconds,
        max_rss_bytes=use.max_rss_bytes,
        wall_seconds=use.wall_seconds,
    )


def _to_resources(resources: Resources) -> pipelines_pb2.Resources:
    return pipelines_pb2.Resources(
        cpus=resources.cpus, memory=resources.memory, gpus=resources.gpus
    )


def to_pipeline(pipeline: Pipeline, version: str) -> pipelines_pb2.Pipeline:
    """Return a pipeline as the API's."""
    needs = pipeline.resources
    return pipelines_pb2.Pipeline(
        name=pipeline.name,
        version=version,
        description=pipeline.description,
        command=pipeline.command,
        image=pipeline.image or "",
        executor=pipeline.executor,
        remote_pipeline=(pipeline.remote_pipeline or pipeline.name) if pipeline.is_remote else "",
        resources=pipelines_pb2.Resources(cpus=needs.cpus, memory=needs.memory, gpus=needs.gpus),
        limits=pipelines_pb2.Limits(**pipeline.limits.model_dump()),
        timeout_seconds=pipeline.timeout or 0.0,
        queue_timeout_seconds=pipeline.queue_timeout or 0.0,
        silence_timeout_seconds=pipeline.silence_timeout or 0.0,
        cancel_policy=pipeline.cancel,
        retries=pipelines_pb2.Retries(
            attempts=pipeline.retries.attempts,
            exit_codes=pipeline.retries.exit_codes,
            delay_seconds=pipeline.retries.delay,
            max_delay_seconds=pipeline.retries.max_delay,
        ),
        log_size=pipeline.log_size,
        steps=pipeline.steps,
        requires=None if pipeline.requires is None else to_requirements(pipeline.requires.frozen),
    )
