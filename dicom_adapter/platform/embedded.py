"""The platform inside a service: its parts put together, started, reloaded and stopped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_adapter.clock import Clock
from dicom_adapter.config import Settings
from dicom_adapter.ledger import Ledger
from dicom_adapter.model import Duplicates
from dicom_adapter.platform.control import JobControl
from dicom_adapter.platform.executor import Executor
from dicom_adapter.platform.leftovers import Leftovers
from dicom_adapter.platform.operations import JobOperations
from dicom_adapter.platform.pausing import PlatformControl
from dicom_adapter.platform.pipelines import PipelineOperations
from dicom_adapter.platform.projects import Projects
from dicom_adapter.platform.queue import JobQueue, rules_of
from dicom_adapter.platform.remotes import Remotes
from dicom_adapter.platform.resolving import Resolver
from dicom_adapter.platform.runtime import ContainerRuntime
from dicom_adapter.platform.scheduler import Scheduler
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.views import JobViews
from dicom_adapter.platform.workspace import Workspaces


@dataclass(frozen=True)
class PlatformOperations:
    """What a platform answers with."""

    jobs: JobOperations
    views: JobViews
    control: JobControl
    pipelines: PipelineOperations
    platform: PlatformControl


class EmbeddedPlatform:
    """Queues and runs jobs."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        clock: Clock,
        workspaces: Workspaces,
        uploads: Uploads,
        *,
        projects: Projects,
        locate: Callable[[str], Path],
        ended: Callable[[], None],
    ) -> None:
        """Put it together; nothing runs yet.

        Args:
            settings: What it goes by, until `reload`.
            ledger: The ledger.
            clock: The time.
            workspaces: Where the jobs' files lie.
            uploads: Where instances from other machines lie.
            projects: The projects that jobs can be in.
            locate: Where the adapter keeps an instance, by its id.
            ended: Told that a job has ended.
        """
        container = settings.platform
        runtime = ContainerRuntime(container.container_runtime, container.container_options)
        queue = JobQueue(ledger, clock, rules_of(settings))
        on_lost = settings.platform.on_lost
        self._remotes = Remotes(settings.executors, ledger)
        self._leftovers = Leftovers(self._remotes, clock)
        self._told_of_end = ended
        self._scheduler = Scheduler(
            queue,
            on_lost,
            ledger,
            clock,
            workspaces,
            executor=Executor(runtime, self._remotes),
            ended=self._ended,
        )
        self._pipelines = PipelineOperations(settings.pipelines.values(), runtime)
        self._resolver = Resolver(ledger, locate, _duplicates(settings))
        wake = self._scheduler.wake
        self.operations = PlatformOperations(
            jobs=JobOperations(
                ledger,
                clock,
                self._pipelines,
                workspaces,
                uploads,
                projects=projects,
                queue=queue,
                resolver=self._resolver,
                locate=locate,
                submitted=wake,
                ended=self._ended,
            ),
            views=JobViews(ledger, queue, workspaces),
            control=JobControl(
                ledger,
                clock,
                workspaces,
                queue=queue,
                submitted=wake,
                cancelling=self._scheduler.cancel,
                cancelling_item=self._scheduler.cancel_item,
                ended=self._ended,
            ),
            pipelines=self._pipelines,
            platform=PlatformControl(ledger, clock, resumed=wake),
        )

    def start(self) -> None:
        """Put right what a crash left, then start taking jobs."""
        self._scheduler.start()
        self._leftovers.start()

    def _ended(self) -> None:
        self._leftovers.wake()
        self._told_of_end()

    def reload(self, settings: Settings) -> None:
        """Go by other settings from now on; jobs keep what they were made of."""
        self._remotes.reload(settings.executors)
        self._leftovers.wake()
        self._pipelines.reload(settings.pipelines.values())
        self._resolver.reload(_duplicates(settings))
        self._scheduler.reload(rules_of(settings), settings.platform.on_lost)

    def stop(self, timeout: float) -> None:
        """Stop taking jobs, end those that run and put them back into the queue."""
        self._scheduler.stop(timeout)
        self._leftovers.stop(timeout)


def _duplicates(settings: Settings) -> Mapping[str, Duplicates]:
    return {name: title.duplicates for name, title in settings.ae_titles.items()}
