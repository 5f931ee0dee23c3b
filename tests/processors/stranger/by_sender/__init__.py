"""A job processor as a stranger writes one: everything of a scanner's day is one job.

It knows of DICOM Adapter what its documentation says, and no more.
"""

from pydantic import BaseModel, ConfigDict

from dicom_adapter import (
    InstanceGroup,
    JobProcessorBase,
    PipelineName,
    Priority,
    QuarantineInstance,
    Seconds,
    StoredInstance,
)


class BySenderSettings(BaseModel):
    """Which pipeline runs, and how long a scanner must be quiet before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: PipelineName
    quiet: Seconds = 10.0


class BySender(JobProcessorBase):
    """Groups by the calling AE title, and makes one urgent job of each group."""

    name = "by_sender"
    Settings = BySenderSettings

    def handle_instance(self, instance: StoredInstance) -> None:
        """Put the instance to those of its scanner."""
        if not instance.read("Modality").get("Modality"):
            raise QuarantineInstance("it does not say of which modality it is")
        self.group(instance, instance.calling_ae_title, after=self.settings.quiet)

    def handle_group(self, group: InstanceGroup) -> None:
        """Make the job."""
        self.submit_pipeline_job(
            f"{self.ae_title} {group.key}",
            self.settings.pipeline,
            Priority.HIGHER,
            group.instances,
        )
        self.remove_instances(group.instances)
