"""A platform in this process, over a folder of its own, without a gRPC server."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from dicom_adapter.access import Access
from dicom_adapter.config import Capacity, Pipeline, PlatformSettings, Resources, Settings
from dicom_adapter.files import LeaveToKernel
from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.ledger.turns import Rules
from dicom_adapter.lifecycle import TERMINAL, Role
from dicom_adapter.model import (
    LOCAL,
    Caller,
    InputFile,
    Job,
    JobInput,
    JobItem,
    JobRequest,
    Priority,
)
from dicom_adapter.platform.control import JobControl
from dicom_adapter.platform.embedded import PlatformOperations
from dicom_adapter.platform.executor import Executor
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
from dicom_adapter.receive.spool import Spool
from dicom_adapter.rpc.credentials import Credentials
from tests.ledger import make
from tests.support import PATIENCE, ManualClock

PREAMBLE = b"\0" * 128 + b"DICM"
MIB = 1024**2


def sh(script: str, name: str = "test", **values: Any) -> Pipeline:  # noqa: ANN401 - a Pipeline's fields
    """Return a pipeline of one shell script; braces in it are literal."""
    resources = values.pop("resources", {})
    return Pipeline(
        name=name,
        command=("sh", "-c", script.replace("{", "{{").replace("}", "}}")),
        resources=Resources(**{"cpus": 1, "memory": MIB, **resources}),
        **values,
    )


def part10(text: str = "") -> bytes:
    """Return bytes that begin like a Part 10 file, unlike all others when there is no text."""
    return PREAMBLE + (text or uuid4().hex).encode()


#: A person who may do everything.
SOMEBODY = Caller("somebody", Role.ADMIN)


@dataclass
class Platform:
    """The parts of a platform, and what a test asks of them."""

    folder: Path
    pipelines: Sequence[Pipeline]
    max_jobs: int = 4
    on_lost: Literal["requeue", "fail"] = "requeue"
    runtime: ContainerRuntime = field(default_factory=lambda: ContainerRuntime("auto", ()))
    capacity: Capacity = field(default_factory=lambda: Capacity(cpus=4, memory=2048 * MIB, gpus=0))

    def __post_init__(self) -> None:
        """Open what is on the disk."""
        self.clock = ManualClock()
        self.ledger = Ledger(f"sqlite:///{self.folder / 'ledger.db'}")
        self.ledger.open()
        self.spool = Spool(self.folder / "spool", LeaveToKernel())
        self.workspaces = Workspaces(self.folder / "platform" / "jobs")
        self.uploads = Uploads(self.folder / "platform" / "uploads", self.ledger, self.clock)
        for part in (self.spool, self.workspaces, self.uploads):
            part.open()
        self.projects = Projects(("trial",))
        self.access = Access(self.ledger, self.clock, self.projects)
        self.known = PipelineOperations(self.pipelines, self.runtime)
        self.queue = JobQueue(self.ledger, self.clock, self.rules())
        self.ended = threading.Event()
        self.scheduler = self.new_scheduler()
        self.operations = JobOperations(
            self.ledger,
            self.clock,
            self.known,
            self.workspaces,
            self.uploads,
            projects=self.projects,
            queue=self.queue,
            resolver=Resolver(self.ledger, self.spool.path_of, {}),
            locate=self.spool.path_of,
            submitted=self.wake,
            ended=self.ended.set,
        )
        self.views = JobViews(self.ledger, self.queue, self.workspaces)
        self.control = JobControl(
            self.ledger,
            self.clock,
            self.workspaces,
            queue=self.queue,
            submitted=self.wake,
            cancelling=self.cancelling,
            cancelling_item=self.cancelling_item,
            ended=self.ended.set,
        )
        self.platform = PlatformControl(self.ledger, self.clock, resumed=self.wake)
        self.served = PlatformOperations(
            self.operations,
            self.views,
            self.control,
            self.known,
            self.platform,
        )

    def known_as(
        self, name: str, role: Role = Role.ADMIN, project: str | None = None
    ) -> Credentials:
        """Make a token, and return what its caller shows."""
        _token, secret = self.access.create(
            SOMEBODY, name=name, role=role, project=project, lasts=None
        )
        return Credentials(secret)

    def cancelling(self, job_id: str) -> None:
        """Have the scheduler that runs now end a job."""
        self.scheduler.cancel(job_id)

    def cancelling_item(self, job_id: str, item_id: str) -> None:
        """Have the scheduler that runs now end an item."""
        self.scheduler.cancel_item(job_id, item_id)

    def wake(self) -> None:
        """Have the scheduler that runs now look at the queue."""
        self.scheduler.wake()

    def new_scheduler(self) -> Scheduler:
        """Make a scheduler as a start of the service does."""
        return Scheduler(
            self.queue,
            self.on_lost,
            self.ledger,
            self.clock,
            self.workspaces,
            executor=Executor(self.runtime, Remotes({}, self.ledger)),
            ended=self.ended.set,
        )

    def rules(self) -> Rules:
        """Return what the queue goes by."""
        platform = PlatformSettings(max_jobs=self.max_jobs, capacity=self.capacity)
        pipelines = {pipeline.name: pipeline for pipeline in self.pipelines}
        return rules_of(Settings(platform=platform, pipelines=pipelines))

    def restart(self) -> None:
        """Start again after a stop."""
        self.scheduler = self.new_scheduler()
        self.scheduler.start()

    def store(self, data: bytes | None = None) -> InputFile:
        """Put an instance into the spool and the ledger, as if it had been received."""
        data = data or part10()
        instance_id = uuid4().hex
        with self.spool.receive(instance_id) as part:
            part.write([data])
            assert self.spool.keep([part]) == [None]
        digest = sha256(data).hexdigest()
        with self.ledger.write() as tx:
            stored = make.kept(tx, id=instance_id, sha256=digest, size=len(data))
        return InputFile(stored.id, stored.sha256, stored.sop_instance_uid)

    def release(self, *files: InputFile) -> None:
        """Let the reclaimer have instances."""
        with self.ledger.write() as tx:
            instances.release(tx, [file.instance_id for file in files], self.clock.now())

    def series(self, data: bytes | None = None) -> tuple[JobInput]:
        """Return inputs of one new instance."""
        return (JobInput("1.2.3", "1.2.3.4", "all", (self.store(data),)),)

    def request(self, pipeline: str = "test", **values: Any) -> JobRequest:  # noqa: ANN401 - its fields
        """Return a request for a job over one new instance, unless it says otherwise."""
        inputs = values.pop("inputs", None) or self.series()
        return JobRequest(
            **{
                "request_id": uuid4().hex,
                "name": f"test-{pipeline}",
                "pipeline": pipeline,
                "priority": Priority.NORMAL,
                "ae_title": "TEST",
                "items": (inputs,),
                **values,
            }
        )

    def submit(self, pipeline: str = "test", **values: Any) -> Job:  # noqa: ANN401 - a request's fields
        """Make a job over one new instance, unless it says otherwise."""
        return self.operations.submit(LOCAL, self.request(pipeline, **values))

    def until(self, job: Job, *states: str) -> Job:
        """Wait until a job is in one of these states, else until it has ended."""

        def look() -> Job | None:
            found = self.views.get(LOCAL, job.id)
            return found if found.state in (states or TERMINAL) else None

        found = self.ledger.wait_for(look, PATIENCE)
        assert found is not None
        return found

    def log_of(self, job: Job) -> str:
        """Return what a job's command has written."""
        return b"".join(self.views.logs(LOCAL, job.id, follow=False, active=lambda: True)).decode()

    def output_of(self, job: Job, path: str) -> str:
        """Return the text of an output."""
        return (self.workspaces.of(job.id).output / path).read_text("utf-8")


@contextmanager
def platform(folder: Path, *pipelines: Pipeline, **values: Any) -> Iterator[Platform]:  # noqa: ANN401 - a Platform's fields
    """Run a platform until the block ends."""
    made = Platform(folder, pipelines, **values)
    made.scheduler.start()
    try:
        yield made
    finally:
        made.scheduler.stop(PATIENCE)
        made.ledger.close()


def wait_for_file(path: Path) -> None:
    """Wait until a pipeline has made a file; no commit tells of it."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE * 100)):
        if path.exists():
            return
        waiting.wait(0.01)
    raise TimeoutError(f"{path} was not made")


def leave_half_retried(made: Platform, job: Job, *items: JobItem) -> None:
    """Leave what a crash just before the commit of a retry leaves: outputs that were set aside."""
    with made.workspaces.superseding(job.id):
        marks = [path for path in made.workspaces.folder.iterdir() if path.is_file()]
        for item in items or job.items:
            part = made.workspaces.of(job.id).of_item(item, len(job.items))
            part.supersede_outputs(job.attempts)
    for mark in marks:
        mark.touch()
