"""The Storage SCPs of one process: accepts on the ports, and serves the associations that come."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import structlog

from dicom_adapter.receive.admission import Gate
from dicom_adapter.receive.association import Association, Services
from dicom_adapter.receive.connection import Connection
from dicom_adapter.receive.conversation import Conversation
from dicom_adapter.receive.exchange import Store
from dicom_adapter.receive.identity import Checked, Identity, Users
from dicom_adapter.receive.intake import Intake, Limits
from dicom_adapter.receive.keeper import Keeper, PatientKeeper, PromptKeeper
from dicom_adapter.receive.loop import READ, Loop
from dicom_adapter.receive.policy import Policy, Rules
from dicom_adapter.receive.tls import Tls, refreshed
from dicom_adapter.receive.transport import HandshakeError, Plain, Transport, prepare

#: How long connections may take to close once they are aborted, in seconds.
ABORT_SECONDS = 1.0
# What one reading takes at most: some PDUs of the longest kind that others send.
_BUFFER_BYTES = 512 * 1024
# Of a storm of connections so many are taken in a row, before those that are here have their turn.
_ACCEPTS_IN_A_ROW = 16
# Without a descriptor for one more connection, this is waited before trying again, in seconds.
_FULL_SECONDS = 0.1

log = structlog.get_logger()


class Listener:
    """Answers C-ECHO and C-STORE on listening sockets that it is given."""

    _loop: Loop
    _keeper: Keeper
    _store: Store
    _services: Services
    _limits: Limits
    _sockets: Mapping[int, socket.socket]

    def __init__(
        self,
        gate: Gate,
        intake: Intake,
        numbers: Iterator[int],
        *,
        stored: Callable[[str], None],
    ) -> None:
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._gate = gate
        self._numbers = numbers
        self._stored = stored
        self._intake = intake
        self._users = Users()
        self._connections: set[Connection] = set()
        self._accepting: dict[int, socket.socket] = {}
        #: Whether it was told that nothing more can be accepted.
        self._is_full = False
        self._tls: ssl.SSLContext | None = None
        self._is_closing = False
        self._all_closed = threading.Event()

    @property
    def patience(self) -> float:
        """How long a peer may leave an answer unread, in seconds."""
        return self._services.dicom.timeouts.progress

    def start(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        """Accept on these sockets, by the port that the configuration calls them."""
        self._loop = Loop("dicom")
        keeper = PatientKeeper if self._intake.waits else PromptKeeper
        self._keeper = keeper(self._intake, self._loop)
        self._store = Store(self._intake, lambda: self._limits, self._keeper.keep, self._stored)
        self._configure(rules, sockets)
        self._loop.start()

    def reload(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        """Go by other rules from now on; associations keep those that they began with."""
        done = threading.Event()

        def configure() -> None:
            self._configure(rules, sockets)
            done.set()

        self._loop.post(configure)
        done.wait()

    def stop(self, grace: float) -> None:
        """Accept no more, let associations end for `grace` seconds, then abort the rest."""
        self._loop.post(self._close)
        self._all_closed.wait(grace)
        self._loop.post(self._abort_all)
        self._all_closed.wait(ABORT_SECONDS)
        # What is whole is kept and answered, however long the disk takes.
        self._keeper.stop()
        self._users.stop()
        self._loop.post(self._cut_all)
        self._loop.stop()

    # In the loop's thread, from here on.

    def _configure(self, rules: Rules, sockets: Mapping[int, socket.socket]) -> None:
        self._limits = Limits(rules.dicom.max_instance, rules.reserve)
        self._services = Services(rules.dicom, Policy(rules), self._gate, self._store, self._check)
        self._tls = refreshed(rules.dicom.tls, self._tls)
        self._sockets = sockets
        for port in self._accepting.keys() - sockets:
            self._loop.unwatch(self._accepting.pop(port))
        self._accept_everywhere()

    def _accept_everywhere(self) -> None:
        for port in self._sockets.keys() - self._accepting:
            sock = self._accepting[port] = self._sockets[port]
            self._loop.watch(sock, READ, partial(self._accept, sock, port))

    def _check(self, identity: Identity, done: Checked) -> None:
        dicom = self._services.dicom
        self._users.check(dicom, identity, lambda found: self._loop.post(partial(done, found)))

    def _accept(self, sock: socket.socket, port: int, events: int) -> None:
        del events
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                connection, address = sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                # It was gone before its turn came.
                continue
            except OSError as error:
                self._wait_for_room(port, error)
                return
            self._is_full = False
            self._open(connection, _plain_address(address[0]), port)

    def _open(self, sock: socket.socket, address: str, port: int) -> None:
        conversation = Conversation(next(self._numbers), address, port)
        try:
            transport = self._transport(sock, port)
        except (OSError, HandshakeError) as error:
            conversation.untrusted(str(error))
            sock.close()
            return
        connection = Connection(self._loop, self, transport)
        self._connections.add(connection)
        connection.start(Association(self._services, connection, conversation))

    def _transport(self, sock: socket.socket, port: int) -> Transport:
        prepare(sock)
        tls = self._services.dicom.tls
        if tls is None or port != tls.port:
            return Plain(sock)
        if self._tls is None:
            raise HandshakeError("there is no usable certificate of ours")
        return Tls(sock, self._tls)

    def _wait_for_room(self, port: int, error: OSError) -> None:
        # Not accepted, it would be reported again at once, and again.
        if not self._is_full:
            log.error(
                "connections have to wait: raise the limit of open files",
                action="listener.full",
                error=error.strerror,
                port=port,
            )
        self._is_full = True
        self._loop.unwatch(self._accepting.pop(port))
        self._loop.call_at(time.monotonic() + _FULL_SECONDS, self._accept_everywhere)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._tell_if_all_closed()

    def _tell_if_all_closed(self) -> None:
        if self._is_closing and not self._connections:
            self._all_closed.set()

    def _close(self) -> None:
        self._is_closing = True
        for port in list(self._accepting):
            self._loop.unwatch(self._accepting.pop(port))
        self._sockets = {}
        for connection in list(self._connections):
            if not connection.association.is_established:
                connection.cut("the service stops")
        log.info(
            "no more associations are taken",
            action="listener.closed",
            associations=len(self._connections),
        )
        self._tell_if_all_closed()

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            if not connection.association.busy:
                connection.association.abort("the service stops")

    def _cut_all(self) -> None:
        for connection in list(self._connections):
            connection.cut("the service stops")


def _plain_address(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
