"""What tests share: a clock that they move, a running service, instances to send, and waiting."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ

from dicom_adapter.access import Access
from dicom_adapter.addresses import Ready, socket_address
from dicom_adapter.clock import SystemClock
from dicom_adapter.config import Settings, load
from dicom_adapter.ledger import Ledger, groups, jobs
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.lifecycle import TERMINAL, Role
from dicom_adapter.model import LOCAL, GroupSummary, Job
from dicom_adapter.platform.projects import Projects
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.reactor import steady
from dicom_adapter.rpc.client import Client
from dicom_adapter.service import Service
from dicom_adapter.v1 import tokens_pb2

T = TypeVar("T")

#: The one knob of every wait in a test, in seconds; slow machines turn it up.
PATIENCE = 20.0 * float(os.environ.get("TEST_PATIENCE", "1"))

SUCCESS = 0x0000

#: A configuration for tests: free ports on loopback, and a pipeline that copies its input.
CONFIG = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
pipelines:
  copy:
    command: [sh, -c, 'cp -r "$0"/. "$1"', "{input}", "{output}"]
    resources: {memory: 1MiB}
ae_titles:
  TEST: {settings: {pipeline-copy: copy}}
"""


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []

    def now(self) -> datetime:
        """Return the time that the test has set."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake whoever waits for it."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            for event in self._waiting:
                event.set()

    def was_set_by(self) -> timedelta:
        """Return that nobody has set the machine's clock."""
        return timedelta()

    def wait(self, event: threading.Event, until: datetime | None) -> None:
        """Wait as `Clock` says."""
        with self._lock:
            if until is not None and until <= self._now:
                return
            self._waiting.append(event)
        event.wait()
        with self._lock:
            self._waiting.remove(event)


def let_in(ledger: Path, file: Path) -> str:
    """Make a token in the ledger of a platform that need not have run yet, and write it down."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    kept = Ledger(f"sqlite:///{ledger}")
    kept.open()
    access = Access(kept, SystemClock(), Projects(()))
    role, project = Role.OPERATOR, "default"
    _, secret = access.create(LOCAL, name="adapter", role=role, project=project, lasts=None)
    kept.close()
    file.write_text(secret)
    return secret


@dataclass(frozen=True)
class Running:
    """A service that runs in this process, on real ports."""

    service: Service
    ready: Ready

    @property
    def port(self) -> int:
        """The first DICOM port."""
        return int(self.ready.dicom[0].rpartition(":")[2])

    def token(self) -> str:
        """Return the secret of a new token that may do everything."""
        with Client(socket_address(self.service.settings)) as owner:
            request = tokens_pb2.CreateTokenRequest(role=tokens_pb2.ROLE_ADMIN)
            return owner.tokens.CreateToken(request).secret

    def wait_for(self, look: Callable[[], T]) -> T:
        """Return what `look` returns once it is true; it looks after each commit."""
        return self.service.ledger.wait_for(look, PATIENCE)

    def jobs(self) -> list[Job]:
        """Return every job, the oldest first."""
        with self.service.ledger.read() as tx:
            return jobs.listed(tx, JobFilter(), 1000)[0][::-1]

    def ended_jobs(self, count: int) -> list[Job]:
        """Wait until so many jobs have ended, and return all jobs."""

        def ended() -> list[Job]:
            found = self.jobs()
            return found if sum(job.state in TERMINAL for job in found) >= count else []

        return self.wait_for(ended)

    def groups(self) -> list[GroupSummary]:
        """Return the groups that are open or parked."""
        with self.service.ledger.read() as tx:
            return groups.summaries(tx)

    def grouped(self, instances: int) -> list[GroupSummary]:
        """Wait until so many instances are in open groups, and return the groups."""

        def found() -> list[GroupSummary]:
            listed = self.groups()
            return listed if sum(group.instances for group in listed) == instances else []

        return self.wait_for(found)


def settings_of(folder: Path, text: str = CONFIG) -> Settings:
    """Return the settings of a configuration text, its file and data in a folder."""
    file = folder / "dicom-adapter.yaml"
    file.write_text(text, "utf-8")
    return load(file, Catalogue())


@contextmanager
def running(
    folder: Path, text: str = CONFIG, clock: ManualClock | None = None
) -> Iterator[Running]:
    """Run a service over the data in a folder, on free ports, until the block ends."""
    settings = settings_of(folder, text)

    def read_again(running: Settings) -> Settings:
        return load(Path(settings.file), Catalogue(), running=running)

    service = Service(settings, read_again, clock)
    ready = service.start()
    try:
        yield Running(service, ready)
    finally:
        service.stop()


def make_instance(
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.4",
    number: int | None = 1,
    patient: str | None = "P1",
    **attributes: object,
) -> Dataset:
    """Return a small CT instance with a new SOP Instance UID; attributes are set by keyword.

    An attribute of None is left out.
    """
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    values: dict[str, object] = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": generate_uid(),
        "InstanceNumber": number,
        "PatientID": patient,
        **attributes,
    }
    for keyword, value in values.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


@contextmanager
def association(
    port: int,
    called: str = "TEST",
    calling: str = "SCU",
    contexts: Sequence[tuple[str, str]] = (
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"),
        ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1"),
    ),
) -> Iterator[Association]:
    """Open an association of (SOP class, transfer syntax) contexts, and release it after."""
    ae = AE(calling)
    rejections: list[A_ASSOCIATE_RJ] = []

    def received(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    opened = ae.associate(
        "127.0.0.1",
        port,
        [build_context(sop_class, syntax) for sop_class, syntax in contexts],
        ae_title=called,
        evt_handlers=[(evt.EVT_PDU_RECV, received)],
    )
    # pynetdicom takes a peer that rejects at once for one that nobody reached.
    opened.is_rejected = bool(rejections)
    steady(opened)
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def files_in(folder: Path) -> list[Path]:
    """Return every file below a folder, also while a service removes folders there."""
    # Not Path.rglob, which raises when a folder goes away under it.
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)


def send(
    port: int, instances: Sequence[Dataset], called: str = "TEST", calling: str = "SCU"
) -> list[int]:
    """Send instances over one association; return the status of each."""
    contexts = {
        (str(instance.SOPClassUID), str(instance.file_meta.TransferSyntaxUID)): None
        for instance in instances
    }
    with association(port, called, calling, list(contexts)) as opened:
        assert opened.is_established
        return [opened.send_c_store(instance).Status for instance in instances]


def command(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `dicom-adapter` as a user would, in a folder; return how it ended and what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "dicom_adapter", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
