"""Our values as the messages of the adapter's own service, and back."""

from dicom_adapter.config import Change
from dicom_adapter.errors import Mistake
from dicom_adapter.model import (
    Disorder,
    GroupSummary,
    Keeping,
    QuarantinedInstance,
    Rejection,
    ServiceStatus,
    Submission,
)
from dicom_adapter.rpc.convert import to_timestamp
from dicom_adapter.v1 import adapter_pb2


def to_disorder(disorder: Disorder) -> adapter_pb2.Disorder:
    """Return what does not agree as the API's."""
    return adapter_pb2.Disorder(
        kind=disorder.kind,
        instance=disorder.instance_id,
        needs_person=disorder.needs_person,
        cure=disorder.cure,
    )


def to_group(group: GroupSummary) -> adapter_pb2.Group:
    """Return a group as the API's."""
    return adapter_pb2.Group(
        id=group.id,
        ae_title=group.ae_title,
        key=group.key,
        state=group.state,
        instances=group.instances,
        size=group.size,
        opened_at=to_timestamp(group.opened_at),
        last_instance_at=to_timestamp(group.last_instance_at),
        ready_at=to_timestamp(group.ready_at),
        attempts=group.attempts,
        error=group.error,
    )


def to_submission(submission: Submission) -> adapter_pb2.Submission:
    """Return a submission as the API's."""
    return adapter_pb2.Submission(
        id=submission.id,
        ae_title=submission.ae_title,
        group_id=submission.group_id or "",
        name=submission.name,
        pipeline=submission.pipeline,
        priority=submission.priority.label,
        state=submission.state,
        instances=submission.instances,
        attempts=submission.attempts,
        created_at=to_timestamp(submission.created_at),
        ready_at=to_timestamp(submission.ready_at),
        error=submission.error,
    )


def to_quarantined(found: QuarantinedInstance) -> adapter_pb2.QuarantinedInstance:
    """Return an instance in quarantine as the API's."""
    instance = found.instance
    return adapter_pb2.QuarantinedInstance(
        id=instance.id,
        ae_title=instance.ae_title,
        calling_ae_title=instance.calling_ae_title,
        source_address=instance.source_address,
        sop_class_uid=instance.sop_class_uid,
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        sop_instance_uid=instance.sop_instance_uid,
        size=instance.size,
        received_at=to_timestamp(instance.received_at),
        reason=found.reason,
        attempts=found.attempts,
    )


def to_keeping(keeping: Keeping) -> adapter_pb2.Keeping:
    """Return how much is kept for one reason as the API's."""
    return adapter_pb2.Keeping(
        reason=keeping.reason,
        instances=keeping.instances,
        size=keeping.size,
        oldest=to_timestamp(keeping.oldest),
    )


def to_rejection(rejection: Rejection) -> adapter_pb2.Rejection:
    """Return rejected associations as the API's."""
    return adapter_pb2.Rejection(
        called_ae_title=rejection.called_ae_title,
        calling_ae_title=rejection.calling_ae_title,
        address=rejection.address,
        why=rejection.why,
        count=rejection.count,
        last_at=to_timestamp(rejection.last_at),
    )


def to_service_status(status: ServiceStatus) -> adapter_pb2.Status:
    """Return a service's status as the API's."""
    return adapter_pb2.Status(
        version=status.version,
        started_at=to_timestamp(status.started_at),
        dicom=status.dicom,
        grpc=status.grpc,
        associations=status.associations,
        keeping=map(to_keeping, status.keeping),
        disk=adapter_pb2.Disk(
            free=status.disk.free,
            used_fraction=status.disk.used_fraction,
            watermark=status.disk.watermark,
            reserve=status.disk.reserve,
        ),
        durability=status.durability,
        platform=status.platform,
        jobs=status.jobs,
        attention=status.attention,
        rejections=map(to_rejection, status.rejections),
    )


def to_change(change: Change) -> adapter_pb2.ConfigChange:
    """Return what became of a key of the configuration as the API's."""
    return adapter_pb2.ConfigChange(key=change.key, change=change.change)


def to_mistake(mistake: Mistake) -> adapter_pb2.ConfigMistake:
    """Return a mistake in the configuration as the API's."""
    return adapter_pb2.ConfigMistake(
        file=mistake.file, line=mistake.line, key=mistake.key, problem=mistake.problem
    )


def from_mistake(mistake: adapter_pb2.ConfigMistake) -> Mistake:
    """Return a mistake in the configuration as a value."""
    return Mistake(mistake.file, mistake.line, mistake.key, mistake.problem)
