"""Builds, starts, drains and stops all of it, in one place and in a fixed order.

Start: folder and ledger, platform, gRPC, outbox, processors, reclaimer, and the DICOM ports last,
when everything behind them is ready. Stop: the same backwards, so that nothing is taken in that
nothing would handle; what is not done stays in the ledger.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import structlog

from dicom_adapter.clock import Clock, SystemClock
from dicom_adapter.config import AETitle, Settings
from dicom_adapter.errors import StartError
from dicom_adapter.files import flush_of, make_folder
from dicom_adapter.ledger import Ledger, attention, instances, jobs
from dicom_adapter.model import Disk, ServiceStatus
from dicom_adapter.platform.operations import JobOperations, PipelineOperations
from dicom_adapter.platform.scheduler import Scheduler
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.workspace import Workspaces
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.processor.host import ProcessorHost
from dicom_adapter.processor.operations import GroupOperations, QuarantineOperations
from dicom_adapter.receive.receiving import Receiving
from dicom_adapter.receive.spool import Spool
from dicom_adapter.reclaim import Places, Reclaimer
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.server import AdapterOperations, PlatformOperations, Server
from dicom_adapter.submit.outbox import Outbox, SubmissionOperations

EMBEDDED = "embedded"
SOCKET = Path("run", "grpc.sock")
# sockaddr_un holds 108 bytes, the last of them a zero.
LONGEST_SOCKET_PATH = 107

ASSOCIATIONS_GRACE = 10.0
THREAD_GRACE = 10.0
CALLS_GRACE = 2.0

# So long a failed job is told of: who looks once a day sees each of them.
FAILED_LATELY = timedelta(days=1)
GIB = 1024**3

log = structlog.get_logger()


def socket_address(settings: Settings) -> str:
    """Return the address of the Unix socket that the service of these settings serves."""
    return f"unix:{settings.storage.path / SOCKET}"


@dataclass(frozen=True)
class Ready:
    """Where the service listens, each as HOST:PORT, or unix:PATH where gRPC has no TCP port."""

    dicom: tuple[str, ...]
    grpc: tuple[str, ...]

    def __str__(self) -> str:
        parts = [("dicom", self.dicom), ("grpc", self.grpc)]
        return " ".join(["ready", *(f"{name}={','.join(at)}" for name, at in parts if at)])


class Service:
    """The adapter and its embedded platform, or one of the two, as the settings say."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self._catalogue = catalogue or Catalogue()
        self._running = ExitStack()
        self._data = settings.storage.path
        self.ledger = Ledger(settings.ledger.url, settings.storage.durability)
        self._spool = Spool(self._data / "spool", flush_of(settings.storage.durability))
        self._workspaces = Workspaces(self._data / "platform" / "jobs")
        self._uploads = Uploads(self._data / "platform" / "uploads", self.ledger, self.clock)
        self._hosts: dict[str, ProcessorHost] = {}
        self._outbox: Outbox | None = None
        self._scheduler: Scheduler | None = None
        self._reclaimer: Reclaimer | None = None
        self._receiving: Receiving | None = None
        self._ready = Ready((), ())

    def start(self) -> Ready:
        """Start everything; when this returns, all of it really listens.

        Raises:
            StartError: something cannot start here; whatever had started is stopped again.
        """
        self._started_at = self.clock.now()
        try:
            self._open_storage()
            if self.settings.platform.address == EMBEDDED:
                self._start_platform()
            grpc = self._start_grpc()
            if self.settings.ae_titles:
                self._start_adapter()
            self._start_reclaimer()
            self._ready = Ready(self._start_listener(), grpc)
        except BaseException:
            self.stop()
            raise
        log.info("ready", action="ready", dicom=self._ready.dicom, grpc=self._ready.grpc)
        return self._ready

    def stop(self) -> None:
        """Stop everything, in the reverse order of its start."""
        self._running.close()

    # The parts

    def _open_storage(self) -> None:
        try:
            make_folder(self._data)
            self._lock()
        except OSError as error:
            raise StartError(
                f"{error.filename}: {error.strerror}: storage.path must be a folder that the "
                "service may write"
            ) from error
        self.ledger.open()
        self._running.callback(self.ledger.close)
        self._spool.open()
        self._workspaces.open()
        self._uploads.open()

    def _lock(self) -> None:
        descriptor = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._running.callback(os.close, descriptor)
        try:
            # Held by the open file: it ends with the process, however that ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"{self._data} is in use by another dicom-adapter: stop that one, or choose "
                "another storage.path"
            ) from None

    def _start_platform(self) -> None:
        self._scheduler = Scheduler(
            self.settings.platform,
            self.ledger,
            self.clock,
            self._workspaces,
            ended=self._wake_reclaimer,
        )
        self._scheduler.start()
        self._running.callback(self._scheduler.stop, THREAD_GRACE)

    def _start_grpc(self) -> tuple[str, ...]:
        server = Server(self._platform_operations(), self._adapter_operations())
        path = self._data / SOCKET
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise StartError(
                f"{path}: too long for a Unix socket ({LONGEST_SOCKET_PATH} bytes at most): "
                "choose a shorter storage.path"
            )
        make_folder(path.parent)
        server.listen(socket_address(self.settings))
        addresses = []
        listen = self.settings.grpc.listen
        if listen is not None:
            host = listen.rpartition(":")[0]
            addresses.append(f"{host}:{server.listen(listen)}")
        server.start()
        path.chmod(0o600)
        self._running.callback(server.stop, CALLS_GRACE)
        return tuple(addresses or [socket_address(self.settings)])

    def _platform_operations(self) -> PlatformOperations | None:
        if self._scheduler is None:
            return None
        pipelines = PipelineOperations(self.settings.pipelines.values())
        operations = JobOperations(
            self.ledger,
            self.clock,
            pipelines,
            self._workspaces,
            self._uploads,
            locate=self._spool.path_of,
            submitted=self._scheduler.wake,
        )
        return PlatformOperations(operations, pipelines)

    def _adapter_operations(self) -> AdapterOperations:
        return AdapterOperations(
            status=self.status,
            groups=GroupOperations(self.ledger, self.clock, self._wake_all),
            submissions=SubmissionOperations(self.ledger, self.clock, self._wake_all),
            quarantine=QuarantineOperations(
                self.ledger, self.clock, self._spool.path_of, self._wake_all
            ),
        )

    def _start_adapter(self) -> None:
        client = Client(self.platform_address)
        self._running.callback(client.close)
        self._outbox = Outbox(
            self.ledger,
            self.clock,
            client,
            locate=self._spool.path_of,
            accepted=self._wake_reclaimer,
        )
        self._outbox.start()
        self._running.callback(self._outbox.stop, THREAD_GRACE)
        self._running.callback(self._stop_hosts)
        for title in self.settings.ae_titles.values():
            host = ProcessorHost(
                title,
                self._catalogue.load(title.processor),
                self.ledger,
                self.clock,
                locate=self._spool.path_of,
                submitted=self._outbox.wake,
                released=self._wake_reclaimer,
            )
            host.start()
            self._hosts[title.title] = host

    def _stop_hosts(self) -> None:
        # Together: those that are stuck have one grace between them, not one each.
        stops = [
            threading.Thread(
                target=host.stop, args=(THREAD_GRACE,), name=f"stop {title}", daemon=True
            )
            for title, host in self._hosts.items()
        ]
        for stop in stops:
            stop.start()
        # Twice: a call may take its grace, and the processor's own `stop` after it.
        deadline = time.monotonic() + 2 * THREAD_GRACE
        for stop in stops:
            stop.join(max(0.0, deadline - time.monotonic()))
            if stop.is_alive():
                log.error(
                    "job processor has not stopped in time: it is left behind",
                    action="processor.stuck",
                    thread=stop.name,
                )

    def _start_reclaimer(self) -> None:
        self._reclaimer = Reclaimer(
            self.settings.storage,
            self.settings.platform.keep,
            Places(self._spool, self._workspaces, self._uploads),
            self.ledger,
            self.clock,
        )
        self._reclaimer.start()
        self._running.callback(self._reclaimer.stop, THREAD_GRACE)

    def _start_listener(self) -> tuple[str, ...]:
        if not self.settings.ae_titles:
            return ()
        self._receiving = Receiving(
            self.settings,
            self._spool,
            self.ledger,
            self.clock,
            stored=lambda title: self._hosts[title].wake(),
        )
        addresses = self._receiving.start()
        self._running.callback(self._receiving.stop, ASSOCIATIONS_GRACE)
        return addresses

    @property
    def platform_address(self) -> str:
        """Where jobs are submitted to: the configured platform, or this service's own socket."""
        address = self.settings.platform.address
        return socket_address(self.settings) if address == EMBEDDED else address

    def port_of(self, title: AETitle) -> int:
        """Return the configured port of an AE title."""
        return self.settings.dicom.port if title.port is None else title.port

    # Who wakes whom

    def _wake_reclaimer(self) -> None:
        if self._reclaimer is not None:
            self._reclaimer.wake()

    def _wake_all(self) -> None:
        for host in self._hosts.values():
            host.wake()
        if self._outbox is not None:
            self._outbox.wake()
        self._wake_reclaimer()

    # What it says of itself

    def status(self) -> ServiceStatus:
        """Return what runs, what is kept and why, and what needs a person."""
        with self.ledger.read() as tx:
            keeping, job_counts = tuple(instances.keeping(tx)), jobs.counts(tx)
        storage = self.settings.storage
        return ServiceStatus(
            version=version("dicom-adapter"),
            started_at=self._started_at,
            dicom=self._ready.dicom,
            # The socket too, where the ready line names the TCP address alone.
            grpc=tuple(dict.fromkeys([*self._ready.grpc, socket_address(self.settings)])),
            associations=self._receiving.associations() if self._receiving else 0,
            keeping=keeping,
            disk=Disk(
                free=self._spool.free(),
                used_fraction=self._spool.used_fraction(),
                watermark=storage.watermark,
                reserve=storage.reserve,
            ),
            durability=storage.durability,
            platform=self.settings.platform.address,
            jobs=job_counts if self._scheduler else {},
            attention=tuple(self._attention()),
            rejections=self._receiving.rejections() if self._receiving else (),
        )

    def _attention(self) -> Iterator[str]:
        with self.ledger.read() as tx:
            waiting = attention.waiting(tx)
            failed = attention.failed_jobs(tx, self.clock.now() - FAILED_LATELY)
        for count, thing, what in (
            (waiting.parked_groups, "group", "parked: see `groups list`"),
            (waiting.quarantined, "instance", "in quarantine: see `quarantine list`"),
            (waiting.parked_submissions, "submission", "parked: see why in `submissions list`"),
            (
                waiting.repeated_submissions,
                "submission",
                "waiting for the platform: see `submissions list`",
            ),
        ):
            if count:
                yield f"{count} {thing} is {what}" if count == 1 else f"{count} {thing}s are {what}"
        if failed:
            jobs_have = "job has" if failed == 1 else "jobs have"
            yield f"{failed} {jobs_have} failed since yesterday: see `jobs list --state failed`"
        for title, count in sorted(waiting.instances_of.items()):
            if title not in self.settings.ae_titles:
                yield (
                    f"AE title {title} is not configured any more, but {count} of its instances "
                    "wait for its job processor: configure it again, or discard its groups"
                )
        yield from self._disk_attention()

    def _disk_attention(self) -> Iterator[str]:
        free, used = self._spool.free(), self._spool.used_fraction()
        storage = self.settings.storage
        if free < storage.reserve:
            yield (
                f"C-STORE is answered 0xA700: {free / GIB:.1f} GiB are free, less than "
                f"storage.reserve, {storage.reserve / GIB:.1f} GiB"
            )
        if used > storage.watermark:
            yield f"the disk is {used:.0%} full, above storage.watermark"
