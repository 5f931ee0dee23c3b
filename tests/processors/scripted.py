"""Job processors that do what a test tells them, and note what they were called with."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dicom_adapter import InstanceGroup, JobProcessorBase, Priority, Seconds, StoredInstance

#: A configuration whose AE title TEST does what `SCRIPTS["TEST"]` says, and OTHER likewise.
CONFIG = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
pipelines:
  none: {command: ["true"], resources: {memory: 1MiB}}
ae_titles:
  TEST: {processor: "tests.processors.scripted:Scripted"}
  OTHER: {processor: "tests.processors.scripted:Scripted"}
"""


def by_study(processor: JobProcessorBase, instance: StoredInstance) -> None:
    """Group an instance by its study, for five seconds."""
    processor.group(instance, instance.study_instance_uid, after=5)


def deliver(processor: JobProcessorBase, group: InstanceGroup) -> None:
    """Submit a group and let it go."""
    processor.submit_pipeline_job("job", "none", Priority.NORMAL, group.instances)
    processor.remove_instances(group.instances)


@dataclass
class Script:
    """What the calls do, and which there were."""

    on_instance: Callable[[JobProcessorBase, StoredInstance], None] = by_study
    on_group: Callable[[JobProcessorBase, InstanceGroup], None] = deliver
    calls: list[str] = field(default_factory=list)
    instances: list[StoredInstance] = field(default_factory=list)
    groups: list[InstanceGroup] = field(default_factory=list)
    processors: list[JobProcessorBase] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Note a call while it lasts."""
        with self._lock:
            self.calls.append(name)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


#: The script of each AE title; a test fills it.
SCRIPTS: dict[str, Script] = {}


class Scripted(JobProcessorBase):
    """Does what the script of its AE title says."""

    name = "scripted"

    @property
    def script(self) -> Script:
        """The script of this AE title."""
        return SCRIPTS[self.ae_title]

    def start(self) -> None:
        """Note the start."""
        self.script.processors.append(self)
        with self.script.call("start"):
            pass

    def stop(self) -> None:
        """Note the stop."""
        with self.script.call("stop"):
            pass

    def handle_instance(self, instance: StoredInstance) -> None:
        """Do as the script says."""
        with self.script.call("instance"):
            self.script.instances.append(instance)
            self.script.on_instance(self, instance)

    def handle_group(self, group: InstanceGroup) -> None:
        """Do as the script says."""
        with self.script.call("group"):
            self.script.groups.append(group)
            self.script.on_group(self, group)


class DyingSettings(BaseModel):
    """Where it notes that it has died."""

    model_config = ConfigDict(extra="forbid")

    note: Path
    after: Seconds = 0.0


class Dying(JobProcessorBase):
    """Takes the whole process down, once, in the middle of handling a group."""

    name = "dying"
    Settings = DyingSettings

    def handle_instance(self, instance: StoredInstance) -> None:
        """Group the instance by its study."""
        self.group(instance, instance.study_instance_uid, self.settings.after)

    def handle_group(self, group: InstanceGroup) -> None:
        """Submit the group; die before it is committed, unless it was done before."""
        deliver(self, group)
        note: Path = self.settings.note
        if not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
