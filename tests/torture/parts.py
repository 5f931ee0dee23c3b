"""All of an adapter and its platform in one thread, each part doing its work when it is told to."""

import struct
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

from dicom_adapter.config import AETitle, Keep, StorageSettings
from dicom_adapter.errors import UnavailableError
from dicom_adapter.files import LeaveToKernel
from dicom_adapter.ledger import Ledger, instances, jobs, queue, stock, submissions
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.ledger.turns import Rules
from dicom_adapter.lifecycle import Action, JobState
from dicom_adapter.model import LOCAL, Durability, InputFile, JobRequest, Resources
from dicom_adapter.platform.operations import JobOperations
from dicom_adapter.platform.pipelines import PipelineOperations
from dicom_adapter.platform.projects import Projects
from dicom_adapter.platform.queue import JobQueue
from dicom_adapter.platform.resolving import Resolver
from dicom_adapter.platform.runtime import ContainerRuntime
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.workspace import Workspaces
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.processor.host import ProcessorHost
from dicom_adapter.receive.intake import Arrival, Intake, Limits
from dicom_adapter.receive.part10 import Header, Origin
from dicom_adapter.receive.spool import Spool
from dicom_adapter.reclaim import Places, Reclaimer
from dicom_adapter.rpc.client import Client
from dicom_adapter.submit.outbox import Outbox, SubmissionOperations
from dicom_adapter.upkeep import Upkeep
from tests.ledger import make
from tests.platform.harness import sh
from tests.receive.support import CT, EXPLICIT
from tests.support import CONFIG, ManualClock, files_in, settings_of

PIPELINES = ("one", "two")
TIMEOUT = timedelta(seconds=5)
RETAIN = timedelta(minutes=1)
_KEEP = Keep(inputs=30.0, outputs=30.0, logs=30.0)
_TITLE = "{duplicates: keep-both, settings: {pipeline-one: one, pipeline-two: two}}"
_HEADER = Header(CT, EXPLICIT, Origin("SCU", "TEST"))
_RULES = Rules(Resources(1, 1, 1), 1, timedelta(hours=1), {})
_LIMITS = Limits(max_instance=1_000_000, reserve=0)


@cache
def _title() -> AETitle:
    pipelines = "".join(f"  {name}: {{command: ['true']}}\n" for name in PIPELINES)
    text = CONFIG.partition("ae_titles")[0] + pipelines + f"ae_titles:\n  TEST: {_TITLE}\n"
    with tempfile.TemporaryDirectory() as folder:
        return settings_of(Path(folder), text).ae_titles["TEST"]


def uid(number: int) -> str:
    """Return the SOP Instance UID of an instance."""
    return f"1.2.3.4.{number}"


def data_set(number: int, study: int, variant: int) -> bytes:
    """Return an instance's data set; a variant has the same UIDs, and other bytes."""
    elements = [
        (0x0008, 0x0016, b"UI", CT),
        (0x0008, 0x0018, b"UI", uid(number)),
        (0x0020, 0x000D, b"UI", f"1.2.3.{study}"),
        (0x0020, 0x000E, b"UI", f"1.2.3.{study}.1"),
        (0x0020, 0x0013, b"IS", str(variant)),
    ]
    return b"".join(_element(*element) for element in elements)


def _element(group: int, number: int, representation: bytes, text: str) -> bytes:
    pad = b" " if representation == b"IS" else b"\0"
    value = text.encode() + pad * (len(text) % 2)
    return struct.pack("<HH2sH", group, number, representation, len(value)) + value


def file_of(number: int, data: bytes) -> bytes:
    """Return the whole file that is to be made of a data set."""
    return _HEADER.of(uid(number)) + data


class Line:
    """What the outbox takes for its connection to the platform."""

    def __init__(self, operations: JobOperations) -> None:
        self._operations = operations
        #: What happens to every call: "", "down" or "answer lost".
        self.fault = ""

    def requirements(self, _pipeline: str) -> None:
        """Say that a pipeline takes whatever comes, if the platform is up."""
        if self.fault == "down":
            raise UnavailableError(self.fault)

    def missing(self, files: Sequence[InputFile]) -> list[InputFile]:
        """Ask the platform, if it is up."""
        if self.fault == "down":
            raise UnavailableError(self.fault)
        return self._operations.missing(LOCAL, files)

    def submit(self, request: JobRequest) -> str:
        """Have a job made, and perhaps not be told of it."""
        job = self._operations.submit(LOCAL, request)
        if self.fault:
            raise UnavailableError(self.fault)
        return job.id


class Bench:
    """The parts over a folder; `restart` makes all of them anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self._start()
        self.upkeep.mend()

    def _start(self) -> None:
        url = f"sqlite:///{self.folder / 'ledger.db'}"
        self.ledger = Ledger(url, Durability.PROCESS_CRASH)
        self.ledger.open()
        self.spool = Spool(self.folder / "spool", LeaveToKernel())
        self.workspaces = Workspaces(self.folder / "jobs")
        uploads = Uploads(self.folder / "uploads", self.ledger, self.clock)
        for part in (self.spool, self.workspaces, uploads):
            part.open()
        self.upkeep = Upkeep(self.spool, self.ledger, adopted=lambda _: None)
        self._intake = Intake(self.spool, self._record, self.clock)
        self._start_platform(uploads)
        self._host = ProcessorHost(
            _title(),
            Catalogue().load(_title().processor),
            self.ledger,
            self.clock,
            locate=self.spool.path_of,
            submitted=_nobody,
            released=_nobody,
            kept=_nobody,
        )
        self._outbox = Outbox(
            self.ledger,
            self.clock,
            cast("Client", self._line),
            locate=self.spool.path_of,
            accepted=_nobody,
        )
        self._decisions = SubmissionOperations(self.ledger, self.clock, _nobody)
        self._reclaimer = Reclaimer(
            StorageSettings.model_validate(
                {"path": self.folder, "watermark": "100%", "retain": RETAIN.total_seconds()}
            ),
            _KEEP,
            Places(self.spool, self.workspaces, uploads),
            self.ledger,
            self.clock,
        )

    def _start_platform(self, uploads: Uploads) -> None:
        self._pipelines = PipelineOperations([], ContainerRuntime("auto", ()))
        operations = JobOperations(
            self.ledger,
            self.clock,
            self._pipelines,
            self.workspaces,
            uploads,
            projects=Projects(()),
            queue=JobQueue(self.ledger, self.clock, _RULES),
            resolver=Resolver(self.ledger, self.spool.path_of, {}),
            locate=self.spool.path_of,
            submitted=_nobody,
            ended=_nobody,
        )
        self._line = Line(operations)

    def _record(self, arrivals: Sequence[Any]) -> Any:  # noqa: ANN401 - as the service has it
        with self.ledger.write() as tx:
            return instances.record(tx, arrivals)

    def close(self) -> None:
        """Let everything go; nothing is told beforehand, as nothing is before a crash."""
        self.ledger.close()

    def restart(self, *, mend: bool) -> None:
        """Make everything anew over the same folder, and perhaps compare spool and ledger."""
        self.close()
        self._start()
        if mend:
            self.upkeep.mend()

    def receive(self, number: int, data: bytes) -> tuple[str, bool]:
        """Receive a data set; return the id of its instance, and whether that is a new one."""
        arrival = Arrival("TEST", 1, "SCU", "127.0.0.1", CT, uid(number), EXPLICIT)
        reception = self._intake.begin(arrival, _LIMITS)
        reception.write(_HEADER.of(uid(number)), [memoryview(data)])
        reception.finish()
        (outcome,) = self._intake.keep([reception])
        reception.discard()
        assert outcome.recorded is not None
        return outcome.recorded.instance_id, outcome.recorded.is_new

    def leave_file(self, number: int, data: bytes) -> str:
        """Receive a data set, and crash between its file and its row; return the file's id."""
        instance_id = self.spool.new_id(self.clock.now())
        with self.spool.receive(instance_id) as part:
            part.write([file_of(number, data)])
            assert self.spool.keep([part]) == [None]
        return instance_id

    def process(self) -> None:
        """Have the job processor handle what is due."""
        _work(self._host)

    def submit(self, fault: str) -> None:
        """Have submitted what is due; the fault is "", or what comes of every attempt."""
        self._line.fault = "" if fault == "refused" else fault
        known = () if fault == "refused" else PIPELINES
        self._pipelines.reload([sh("true", name) for name in known])
        _work(self._outbox)

    def due(self) -> list[str]:
        """Return the submissions that are due."""
        with self.ledger.read() as tx:
            return [one.id for one in submissions.due(tx, self.clock.now(), 1000)]

    def retry(self, submission: str) -> None:
        """Have a submission tried again, as a person does."""
        self._decisions.retry(LOCAL, [submission])

    def reclaim(self) -> None:
        """Have removed what nothing needs."""
        _work(self._reclaimer)

    def crash_in_reclaim(self, most: int, unlinked: int) -> list[str]:
        """Crash when some instances were marked, and some of them unlinked; return the marked."""
        with self.ledger.write() as tx:
            ids = stock.begin_reclaim(tx, self.clock.now() - RETAIN, most)
        for instance_id in ids[:unlinked]:
            self.spool.remove(instance_id)
        return ids

    def end_job(self, action: Action) -> None:
        """Have the next job of the queue run and end, if there is one."""
        now = self.clock.now()
        with suppress(AssertionError), self.ledger.write() as tx:
            claim = make.claimed(tx, now)
            values = {"finished_at": now}
            queue.move(tx, claim.job.id, action, at=now, values=values, lease=claim.lease)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query of the ledger finds."""
        with self.ledger.read() as tx:
            return [tuple(row) for row in tx.exec_driver_sql(query)]

    def files(self) -> dict[str, bytes]:
        """Return the bytes of every file of an instance, by its id."""
        folder = self.spool.folder / "instances"
        return {path.stem: path.read_bytes() for path in files_in(folder)}

    def broken_jobs(self) -> list[str]:
        """Return the jobs that have not ended, and lack some of their inputs."""
        with self.ledger.read() as tx:
            states = (JobState.IN_QUEUE, JobState.PROCESSING)
            found = jobs.listed(tx, JobFilter(states=states), 1000)[0]
        return [
            job.name
            for job in found
            if len(files_in(self.workspaces.of(job.id).input)) != job.instances
        ]

    def now(self) -> datetime:
        """Return what the clock says."""
        return self.clock.now()


def _nobody() -> None:
    """Wake nobody: each part works when the test says so."""


def _work(part: ProcessorHost | Outbox | Reclaimer) -> None:
    work: Callable[[], object] = part._work  # noqa: SLF001 - what its thread calls
    work()
