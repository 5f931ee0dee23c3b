"""The contract of a job processor: what it implements, and what it is given."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Protocol, final

from pydantic import BaseModel, ConfigDict

from dicom_adapter.model import InstanceGroup, KeptStudy, Priority, StoredInstance


class NoSettings(BaseModel):
    """The settings of a processor that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Core(Protocol):
    """What the service does for a processor; the methods are those of `JobProcessorBase`."""

    def group(
        self,
        instance: StoredInstance,
        key: str,
        after: timedelta,
        max_wait: timedelta | None,
    ) -> None:
        """Put an instance into a group."""

    def submit_pipeline_job(
        self,
        name: str,
        pipeline: str,
        priority: Priority,
        instances: Sequence[StoredInstance],
        *,
        supersedes: str | None,
        on_mismatch: str,
    ) -> str:
        """Submit a job and return the submission's id."""

    def remove_instances(self, instances: Iterable[StoredInstance]) -> None:
        """Let instances go."""

    def kept_studies(self) -> Sequence[KeptStudy]:
        """Return what is kept."""
        ...

    def remove_study(self, study_instance_uid: str) -> None:
        """Let a study go."""


class JobProcessorBase(ABC):
    """Decides what becomes of the instances that an AE title receives.

    The service makes one object per AE title and calls it so, one call at a time, in a thread of
    the AE title's own:

        start()
        handle_instance(instance)     for each instance, after its sender had its answer
        handle_group(group)           when a group that the processor opened is due
        tend(now)                     when there is nothing else to do, see there
        stop()

    What a call asks for (`group`, `submit_pipeline_job`, `remove_instances`, `remove_study`) is
    committed together when it returns, and not at all when it raises. A call that raises is
    repeated with growing pauses; after the fifth time the instance goes to quarantine, the group is
    parked, and people see both. After a crash, a call that was not committed is made again.
    `QuarantineInstance`, raised from `handle_instance`, sets the instance aside at once.

    Attributes:
        name: What the processor is called in configuration and logs.
        Settings: The pydantic model of its settings; the configuration is checked against it.
        keeps: True where its instances stay until they are let go: then people find them in the
            index, and compose jobs of them.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = NoSettings
    keeps: ClassVar[bool] = False

    def __init__(self, ae_title: str, settings: BaseModel, core: Core) -> None:
        self._ae_title = ae_title
        self._settings = settings
        self._core = core

    @property
    def ae_title(self) -> str:
        """The AE title that this object works for."""
        return self._ae_title

    @property
    def settings(self) -> Any:  # noqa: ANN401 - an instance of the subclass's own Settings
        """The validated settings, an instance of `Settings`."""
        return self._settings

    @abstractmethod
    def handle_instance(self, instance: StoredInstance) -> None:
        """Take one received instance."""

    def handle_group(self, group: InstanceGroup) -> None:  # noqa: B027 - optional on purpose
        """Take a group that is due; without an override its instances are kept."""

    def tend(self, now: datetime) -> float | None:
        """See to what is kept: called at the start, and when instances or groups were handled.

        Then, too, when so many seconds have passed as it returned last; None: not before the next
        instance. What it raises is logged, and it is called again after a pause.

        Args:
            now: The time, as the service has it and what is kept was received by.
        """
        del now
        return None

    def start(self) -> None:  # noqa: B027 - optional on purpose
        """Get ready, before the first call."""

    def stop(self) -> None:  # noqa: B027 - optional on purpose
        """Put away what was opened, after the last call."""

    @final
    def group(
        self,
        instance: StoredInstance,
        key: str,
        after: float,
        max_wait: float | None = None,
    ) -> None:
        """Put an instance into the open group of this key, opening one where there is none.

        Args:
            instance: What to put in.
            key: What its instances have in common: 1 to 1024 characters.
            after: Seconds since the group's last instance until it is due.
            max_wait: Seconds since the group's first instance after which it is due anyhow; the
                instance that opens the group decides.
        """
        self._core.group(
            instance,
            key,
            timedelta(seconds=after),
            None if max_wait is None else timedelta(seconds=max_wait),
        )

    @final
    def submit_pipeline_job(
        self,
        name: str,
        pipeline: str,
        priority: Priority,
        instances: Sequence[StoredInstance],
        *,
        supersedes: str | None = None,
        on_mismatch: Literal["park", "skip", "fail"] = "park",
    ) -> str:
        """Submit a job of one pipeline over instances; return the submission's id.

        The submission is kept and repeated until the platform has accepted it, or parked where
        people see it. Of instances with the same SOP Instance UID the job gets those that
        `duplicates` of the AE title says.

        Args:
            name: What the job's name begins with: it is made safe, with the time behind it.
            pipeline: The pipeline.
            priority: How urgent the job is.
            instances: The job's inputs.
            supersedes: The group whose job of this pipeline the new one takes the place of.
            on_mismatch: What becomes of it where the instances are not what the pipeline requires:
                it is parked where people see it, skipped without a job, or made a job that failed.
        """
        return self._core.submit_pipeline_job(
            name,
            pipeline,
            priority,
            instances,
            supersedes=supersedes,
            on_mismatch=on_mismatch,
        )

    @final
    def remove_instances(self, instances: Iterable[StoredInstance]) -> None:
        """Let the reclaimer have instances, once every submission of them is accepted."""
        self._core.remove_instances(instances)

    @final
    def kept_studies(self) -> Sequence[KeptStudy]:
        """Return what the index has of this AE title, those first that nothing came of longest.

        An instance comes into the index soon after it was handled; only where `keeps` is set.
        """
        return self._core.kept_studies()

    @final
    def remove_study(self, study_instance_uid: str) -> None:
        """Let go of what the index has of a study of this AE title; what a group needs stays."""
        self._core.remove_study(study_instance_uid)
