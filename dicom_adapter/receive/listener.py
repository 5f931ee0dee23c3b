"""The Storage SCPs: every configured port, and the associations that come to them."""

import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from dicom_adapter.config import Settings
from dicom_adapter.errors import StartError
from dicom_adapter.receive.admission import Admissions
from dicom_adapter.receive.association import Association, Services
from dicom_adapter.receive.connection import Connection
from dicom_adapter.receive.conversation import Conversation
from dicom_adapter.receive.exchange import Store
from dicom_adapter.receive.intake import Intake, Outcome, Reception
from dicom_adapter.receive.keeper import Keeper
from dicom_adapter.receive.loop import READ, Loop
from dicom_adapter.receive.policy import Policy
from dicom_adapter.receive.transport import Plain, prepare

#: How long connections may take to close once they are aborted, in seconds.
ABORT_SECONDS = 1.0
# What one reading takes at most: some PDUs of the longest kind that others send.
_BUFFER_BYTES = 512 * 1024
_BACKLOG = 1024
# Of a storm of connections so many are taken in a row, before those that are here have their turn.
_ACCEPTS_IN_A_ROW = 16
# Without a descriptor for one more connection, this is waited before trying again, in seconds.
_FULL_SECONDS = 0.1

log = structlog.get_logger()


class Listener:
    """Listens on every configured port and answers C-ECHO and C-STORE there."""

    _loop: Loop

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        intake: Intake,
        *,
        last_association: int,
        stored: Callable[[str], None],
    ) -> None:
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._settings = settings
        self._policy = policy
        self._keeper = Keeper(intake)
        self._admissions = Admissions(policy, settings.dicom)
        self._services = Services(
            settings.dicom, policy, self._admissions, Store(intake, self._keep, stored)
        )
        self._numbers = itertools.count(last_association + 1)
        self._connections: set[Connection] = set()
        self._all_closed = threading.Event()
        self._ports: list[socket.socket] = []
        self._is_running = False

    @property
    def patience(self) -> float:
        """How long a peer may leave an answer unread, in seconds."""
        return self._services.dicom.timeouts.progress

    def start(self) -> tuple[str, ...]:
        """Listen; return the HOST:PORT of every port, the first configured one first.

        Raises:
            StartError: a port is taken or may not be opened.
        """
        ports = dict.fromkeys(map(self._policy.port_of, self._settings.ae_titles.values()))
        try:
            for port in ports:
                self._ports.append(_listen(self._settings.dicom.host, port))
        except StartError:
            self._close_ports()
            raise
        self._loop = Loop("dicom")
        for sock, port in zip(self._ports, ports, strict=True):
            self._loop.watch(sock, READ, partial(self._accept, sock, port))
        self._is_running = True
        self._keeper.start()
        self._loop.start()
        return self.addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """The HOST:PORT of every port that is listened on."""
        return tuple(_address(*sock.getsockname()[:2]) for sock in self._ports)

    def associations(self) -> int:
        """Return how many associations are established now."""
        return self._admissions.inside

    def stop(self, grace: float) -> None:
        """Stop listening, let associations end for `grace` seconds, then abort the rest."""
        if not self._is_running:
            return
        self._is_running = False
        self._admissions.close()
        self._loop.post(self._close)
        self._all_closed.wait(grace)
        self._loop.post(self._abort_all)
        self._all_closed.wait(ABORT_SECONDS)
        # What is whole is kept and answered, however long the disk takes.
        self._keeper.stop()
        self._loop.post(self._cut_all)
        self._loop.stop()

    # In the loop's thread, from here on.

    def _keep(self, reception: Reception, done: Callable[[Outcome], None]) -> None:
        self._keeper.keep(reception, lambda outcome: self._loop.post(partial(done, outcome)))

    def _accept(self, sock: socket.socket, port: int, events: int) -> None:
        del events
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                connection, address = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._wait_for_room(sock, port, error)
                return
            self._open(connection, _plain_address(address[0]), port)

    def _open(self, sock: socket.socket, address: str, port: int) -> None:
        prepare(sock)
        connection = Connection(self._loop, self, sock, Plain(sock))
        self._connections.add(connection)
        conversation = Conversation(next(self._numbers), address, port)
        connection.start(Association(self._services, connection, conversation))

    def _wait_for_room(self, sock: socket.socket, port: int, error: OSError) -> None:
        # Not accepted, it would be reported again at once, and again.
        log.error(
            "connections have to wait: raise the limit of open files",
            action="listener.full",
            error=error.strerror,
            port=port,
        )
        self._loop.unwatch(sock)
        self._loop.call_at(time.monotonic() + _FULL_SECONDS, partial(self._go_on, sock, port))

    def _go_on(self, sock: socket.socket, port: int) -> None:
        if sock in self._ports:
            self._loop.watch(sock, READ, partial(self._accept, sock, port))

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._tell_if_all_closed()

    def _tell_if_all_closed(self) -> None:
        if not self._connections and not self._ports:
            self._all_closed.set()

    def _close(self) -> None:
        for sock in self._ports:
            # Not watched while it waits for room.
            with suppress(KeyError):
                self._loop.unwatch(sock)
        self._close_ports()
        log.info(
            "no more associations are taken",
            action="listener.closed",
            associations=self._admissions.inside,
        )
        for connection in list(self._connections):
            if not connection.association.is_established:
                connection.cut("the service stops")
        self._tell_if_all_closed()

    def _close_ports(self) -> None:
        for sock in self._ports:
            sock.close()
        self._ports.clear()

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            if not connection.association.busy:
                connection.association.abort("the service stops")

    def _cut_all(self) -> None:
        for connection in list(self._connections):
            connection.cut("the service stops")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was closed just now may be listened on again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - its only form
    except OSError as error:
        sock.close()
        raise StartError(
            f"cannot listen on {_address(host, port)}: {error.strerror}: stop what uses the "
            "port, or choose another (dicom.port, or the AE title's own port)"
        ) from error
    return sock


def _plain_address(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
