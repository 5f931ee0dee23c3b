"""Builds, starts, drains and stops all of it, in one place and in a fixed order.

Start: folder and ledger, webhooks, platform, gRPC, outbox, processors, reclaimer, and the DICOM
ports last, when everything behind them is ready. Stop: the same backwards, so that nothing is taken
in that nothing would handle; what is not done stays in the ledger. Reload: what can fail is done
first, so that it changes all or nothing.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import structlog

from dicom_adapter.access import Access
from dicom_adapter.addresses import EMBEDDED, Ready, platform_address, socket_address, socket_path
from dicom_adapter.audit import AuditTrail
from dicom_adapter.clock import Clock, SystemClock
from dicom_adapter.compose.composing import Composing
from dicom_adapter.compose.indexer import Indexer
from dicom_adapter.config import AETitle, Change, Settings, changes
from dicom_adapter.datafolder import DataFolder
from dicom_adapter.errors import DicomAdapterError, StartError, UnavailableError, WrongStateError
from dicom_adapter.files import flush_of, make_folder
from dicom_adapter.ledger import Ledger
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller, Disorder, ServiceStatus
from dicom_adapter.overview import Overview
from dicom_adapter.platform.embedded import EmbeddedPlatform, PlatformOperations
from dicom_adapter.platform.projects import Projects
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.workspace import Workspaces
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.processor.host import ProcessorHost
from dicom_adapter.processor.hosts import Hosts
from dicom_adapter.processor.operations import GroupOperations, QuarantineOperations
from dicom_adapter.receive.deposit import Deposit, Provenance
from dicom_adapter.receive.receiving import Receiving
from dicom_adapter.receive.spool import Spool
from dicom_adapter.reclaim import Places, Reclaimer
from dicom_adapter.retrieve.fetching import Fetching
from dicom_adapter.rpc.adapter import AdapterOperations
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials, ServerTls
from dicom_adapter.rpc.server import Server
from dicom_adapter.submit.outbox import Outbox, SubmissionOperations
from dicom_adapter.upkeep import Upkeep, logged
from dicom_adapter.webhooks.operations import WebhookOperations
from dicom_adapter.webhooks.outbox import WebhookOutbox

ASSOCIATIONS_GRACE = 10.0
THREAD_GRACE = 10.0
CALLS_GRACE = 2.0

#: Reads the configuration once more, for a service that runs by these settings.
ReadAgain = Callable[[Settings], Settings]

log = structlog.get_logger()


class Service:
    """The adapter and its embedded platform, or one of the two, as the settings say."""

    def __init__(
        self, settings: Settings, read_again: ReadAgain, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self._read_again = read_again
        self._catalogue = Catalogue()
        self._running = ExitStack()
        # How each part takes over other settings, in the order of their start.
        self._reloads: list[Callable[[Settings], None]] = []
        self._changing = threading.RLock()
        self._stopping = False
        self._data = settings.storage.path
        self.ledger = Ledger(settings.ledger.url, settings.storage.durability)
        self._spool = Spool(self._data / "spool", flush_of(settings.storage.durability))
        self._workspaces = Workspaces(self._data / "platform" / "jobs")
        self._projects = Projects(settings.projects)
        self._reloads.append(lambda settings: self._projects.reload(settings.projects))
        self._uploads = Uploads(self._data / "platform" / "uploads", self.ledger, self.clock)
        self._hosts = Hosts(self._make_host)
        self._upkeep = Upkeep(self._spool, self.ledger, adopted=self._hosts.wake)
        self._overview = Overview(self.ledger, self._spool, self._upkeep, self.clock)
        self._webhooks = WebhookOutbox(self.ledger, self.clock)
        self._indexer = Indexer(self.ledger, self.clock, self._spool.path_of)
        self.fetching = Fetching(
            settings,
            self.ledger,
            self.clock,
            keeps=lambda processor: self._catalogue.load(processor).keeps,
            deposits=self._deposit,
        )
        self._outbox: Outbox | None = None
        self._reclaimer: Reclaimer | None = None
        self._receiving: Receiving | None = None
        self._grpc: tuple[str, ...] = ()

    def start(self) -> Ready:
        """Start everything; when this returns, all of it really listens.

        Raises:
            StartError: something cannot start here; whatever had started is stopped again.
        """
        with self._changing:
            try:
                ready = self._start()
            except BaseException:
                self.stop()
                raise
        log.info("ready", action="ready", dicom=ready.dicom, grpc=ready.grpc)
        return ready

    def _start(self) -> Ready:
        self._open_storage()
        self._start_webhooks()
        operations = None
        if self.settings.platform.address == EMBEDDED:
            operations = self._start_platform()
        client = self._open_client()
        self._grpc = self._start_grpc(operations, client)
        self._start_adapter(client)
        self._start_reclaimer()
        return Ready(self._start_listener(), self._grpc)

    def stop(self) -> None:
        """Stop everything, in the reverse order of its start."""
        with self._changing:
            self._stopping = True
        self._running.close()

    def reload(self) -> tuple[Change, ...]:
        """Go by what the configuration says now; return what has changed, if anything.

        Raises:
            ConfigError: it has mistakes, or changes what needs a restart; nothing has changed.
            WrongStateError: something cannot start, or the service stops; nothing has changed.
        """
        with self._changing:
            try:
                found = self._go_by(self._read_again(self.settings))
            except DicomAdapterError as error:
                why = str(error).splitlines()
                log.error("not reloaded: nothing has changed", action="reload.refused", why=why)  # noqa: TRY400 - it says why
                raise
        told = [f"{change.key} {change.change}" for change in found]
        log.info("reloaded", action="reloaded", changes=told)
        return found

    def _go_by(self, settings: Settings) -> tuple[Change, ...]:
        if self._stopping:
            raise WrongStateError("the service stops: nothing has changed")
        found = changes(self.settings, settings)
        try:
            with ExitStack() as undo:
                prepared = self._hosts.prepare(settings.ae_titles)
                undo.callback(self._hosts.discard, prepared.values())
                # Backwards: the listener comes first, the one that a taken port can stop.
                for go_by in reversed(self._reloads):
                    go_by(settings)
                undo.pop_all()
        except StartError as error:
            raise WrongStateError(f"{error}; nothing has changed") from error
        self.settings = settings
        # Last: what the new processors ask for, the others must know.
        self._hosts.switch(settings.ae_titles, prepared)
        return found

    # The parts

    def _open_storage(self) -> None:
        folder = DataFolder(self._data)
        if self.settings.storage.require_marker:
            # Before anything is made: in an empty mount point it would hide under the volume.
            folder.want_marker()
        self._running.enter_context(folder.held())
        self.ledger.open()
        self._running.callback(self.ledger.close)
        if folder.is_new and self._upkeep.has_files():
            # The ledger lies elsewhere, and knows better.
            folder.want_marker()
        folder.mark()
        self._spool.open()
        self._workspaces.open()
        self._uploads.open()
        self._upkeep.mend()

    def _start_webhooks(self) -> None:
        # Before jobs move: whoever is new is told of all that this run brings.
        self._webhooks.start(self.settings.webhooks)
        self._running.callback(self._webhooks.stop, CALLS_GRACE)
        self._reloads.append(lambda settings: self._webhooks.reload(settings.webhooks))

    def _start_platform(self) -> PlatformOperations:
        platform = EmbeddedPlatform(
            self.settings,
            self.ledger,
            self.clock,
            self._workspaces,
            self._uploads,
            projects=self._projects,
            locate=self._spool.path_of,
            ended=self._wake_reclaimer,
        )
        platform.start()
        self._running.callback(platform.stop, THREAD_GRACE)
        self._reloads.append(platform.reload)
        return platform.operations

    def _open_client(self) -> Client:
        # It connects with its first call, so it may well be one to this service's own socket.
        client = Client(platform_address(self.settings), Credentials.of(self.settings.platform))
        self._running.callback(client.close)
        return client

    def _start_grpc(self, platform: PlatformOperations | None, client: Client) -> tuple[str, ...]:
        access = Access(self.ledger, self.clock, self._projects)
        webhooks = WebhookOperations(self.ledger, self.clock, self._webhooks.wake)
        operations, trail = self._adapter_operations(), AuditTrail(self.ledger)
        composing = Composing(
            self.ledger,
            self.clock,
            client,
            locate=self._spool.path_of,
            released=self._wake_reclaimer,
        )
        server = Server(
            platform,
            operations,
            access,
            audit=trail,
            webhooks=webhooks,
            composing=composing,
            fetching=self.fetching,
        )
        path = socket_path(self.settings)
        make_folder(path.parent)
        server.listen(socket_address(self.settings))
        addresses = []
        listen = self.settings.grpc.listen
        if listen is not None:
            host = listen.rpartition(":")[0]
            addresses.append(f"{host}:{server.listen(listen, self._server_tls())}")
        server.start()
        path.chmod(0o600)
        self._running.callback(server.stop, CALLS_GRACE)
        return tuple(addresses or [socket_address(self.settings)])

    def _server_tls(self) -> ServerTls | None:
        if self.settings.grpc.tls is None:
            return None
        tls = ServerTls(self.settings.grpc.tls)

        def reload(settings: Settings) -> None:
            if settings.grpc.tls is not None:
                tls.reload(settings.grpc.tls)

        self._reloads.append(reload)
        return tls

    def _adapter_operations(self) -> AdapterOperations:
        return AdapterOperations(
            status=self._status_for,
            reload=self._reload_for,
            check=self._check_for,
            groups=GroupOperations(self.ledger, self.clock, self._wake_all),
            submissions=SubmissionOperations(self.ledger, self.clock, self._wake_all),
            quarantine=QuarantineOperations(
                self.ledger, self.clock, self._spool.path_of, self._wake_all
            ),
        )

    def _status_for(self, caller: Caller) -> ServiceStatus:
        caller.check_everywhere(Role.VIEWER)
        return self.status()

    def _reload_for(self, caller: Caller) -> tuple[Change, ...]:
        caller.check_everywhere(Role.ADMIN)
        return self.reload()

    def _check_for(self, caller: Caller, *, scrub: bool) -> Iterator[Disorder]:
        caller.check_everywhere(Role.ADMIN)
        return logged(self._upkeep.check(scrub=scrub))

    def _start_adapter(self, client: Client) -> None:
        self._outbox = Outbox(
            self.ledger,
            self.clock,
            client,
            locate=self._spool.path_of,
            accepted=self._wake_reclaimer,
        )
        self._outbox.start()
        self._running.callback(self._outbox.stop, THREAD_GRACE)
        self._indexer.start()
        self._running.callback(self._indexer.stop, THREAD_GRACE)
        # Twice: a call may take its grace, and the processor's own `stop` after it.
        self._running.callback(self._hosts.stop, 2 * THREAD_GRACE)
        titles = self.settings.ae_titles
        self._hosts.switch(titles, self._hosts.prepare(titles))

    def _make_host(self, title: AETitle) -> ProcessorHost:
        return ProcessorHost(
            title,
            self._catalogue.load(title.processor),
            self.ledger,
            self.clock,
            locate=self._spool.path_of,
            submitted=self._wake_outbox,
            released=self._wake_reclaimer,
            kept=self._indexer.wake,
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
        reclaimer = self._reclaimer
        self._reloads.append(
            lambda settings: reclaimer.reload(settings.storage, settings.platform.keep)
        )

    def _start_listener(self) -> tuple[str, ...]:
        receiving = Receiving(
            self.settings, self._spool, self.ledger, self.clock, stored=self._hosts.wake
        )
        addresses = receiving.start()
        self._running.callback(receiving.stop, ASSOCIATIONS_GRACE)
        self._reloads += [self.fetching.reload, receiving.reload]
        # First of all: what is fetched would be waited for.
        self._running.callback(self.fetching.stop)
        self._receiving = receiving
        return addresses

    def port_of(self, title: AETitle) -> int:
        """Return the configured port of an AE title."""
        return self.settings.dicom.port if title.port is None else title.port

    def _deposit(self, ae_title: str, provenance: Provenance) -> Deposit:
        if self._receiving is None:
            raise UnavailableError("the service is about to start: try again")
        return self._receiving.deposit(ae_title, provenance)

    # Who wakes whom

    def _wake_reclaimer(self) -> None:
        if self._reclaimer is not None:
            self._reclaimer.wake()

    def _wake_outbox(self) -> None:
        if self._outbox is not None:
            self._outbox.wake()

    def _wake_all(self) -> None:
        self._hosts.wake_all()
        self._wake_outbox()
        self._wake_reclaimer()

    # What it says of itself

    def status(self) -> ServiceStatus:
        """Return what runs, what is kept and why, and what needs a person."""
        return self._overview.status(
            self.settings,
            dicom=self._receiving.addresses if self._receiving else (),
            # The socket too, where the ready line names the TCP address alone.
            grpc=tuple(dict.fromkeys([*self._grpc, socket_address(self.settings)])),
            associations=self._receiving.associations() if self._receiving else 0,
            runs_jobs=self.settings.platform.address == EMBEDDED,
            rejections=self._receiving.rejections() if self._receiving else (),
        )
