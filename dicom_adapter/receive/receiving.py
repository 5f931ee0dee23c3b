"""All of receiving, as the service has it: ports, gate, and what accepts and stores behind them."""

import itertools
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import Settings
from dicom_adapter.config.tls import expiring
from dicom_adapter.errors import NotFoundError
from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.model import Rejection
from dicom_adapter.receive import libraries
from dicom_adapter.receive.admission import Admissions
from dicom_adapter.receive.deposit import Deposit, Provenance
from dicom_adapter.receive.hub import Hub
from dicom_adapter.receive.intake import Intake, Limits
from dicom_adapter.receive.listener import Listener
from dicom_adapter.receive.policy import Policy, Rules
from dicom_adapter.receive.ports import Ports
from dicom_adapter.receive.processes import Processes
from dicom_adapter.receive.recorder import Recorder
from dicom_adapter.receive.rejections import Rejections
from dicom_adapter.receive.spool import Spool

log = structlog.get_logger()

Sockets = Mapping[int, socket.socket]


class Acceptor(Protocol):
    """What accepts on the ports: this process, or several others."""

    def start(self, rules: Rules, sockets: Sockets) -> None:
        """Accept on these sockets."""

    def reload(self, rules: Rules, sockets: Sockets) -> None:
        """Go by other rules from now on; associations keep those that they began with."""

    def stop(self, grace: float) -> None:
        """Let associations end for `grace` seconds, then abort the rest."""


class Receiving:
    """Listens on every configured port, and stores what comes."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        *,
        stored: Callable[[str], None],
    ) -> None:
        """Prepare to receive.

        Args:
            settings: The configuration.
            spool: Where instances are stored.
            ledger: Where they are recorded.
            clock: The time.
            stored: Told of an AE title that has a new instance, after the answer to its sender.
        """
        self._is_stopped = False
        self._rules = Rules.of(settings)
        self._clock = clock
        self._rejections = Rejections(clock)
        self._gate = Admissions(self._rules, self._rejections)
        self._ports = Ports(settings.dicom.host)
        with ledger.read() as tx:
            # After a restart it goes on from the highest.
            numbers = itertools.count(instances.last_association(tx) + 1)
        recorder = Recorder(ledger)
        intake = Intake(spool, recorder.record, clock)
        self._intake, self._numbers, self._stored = intake, numbers, stored
        self._acceptor: Acceptor
        if settings.dicom.processes == 1:
            self._acceptor = Listener(self._gate, intake, numbers, stored=stored)
        else:
            hub = Hub(self._gate, recorder, numbers, stored)
            self._acceptor = Processes(settings.dicom.processes, hub, spool, clock, settings.log)

    def start(self) -> tuple[str, ...]:
        """Listen; return the HOST:PORT of every port, the first configured one first.

        Raises:
            StartError: a port is taken or may not be opened, or no process can be started.
        """
        libraries.prepare()
        self._ports.open(self._rules.ports)
        try:
            self._acceptor.start(self._rules, self._ports.sockets)
        except BaseException:
            self._ports.close_others(())
            raise
        self._warn()
        return self._ports.addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """The HOST:PORT of every port that is listened on, the first configured one first."""
        return self._ports.addresses

    def reload(self, settings: Settings) -> None:
        """Go by other settings from now on; associations keep those that they began with.

        Raises:
            StartError: a port is taken or may not be opened; then nothing has changed.
        """
        rules = Rules.of(settings)
        self._ports.open(rules.ports)
        sockets = self._ports.sockets
        self._acceptor.reload(rules, {port: sockets[port] for port in rules.ports})
        self._gate.reload(rules)
        self._ports.close_others(rules.ports)
        self._rules = rules
        self._warn()

    def _warn(self) -> None:
        for warning in expiring(self._rules.dicom.tls, self._clock.now()):
            log.warning(warning, action="tls.expiring")

    def deposit(self, ae_title: str, provenance: Provenance) -> Deposit:
        """Return what takes in the instances of a retrieval for an AE title.

        Args:
            ae_title: The AE title.
            provenance: Where they come from.

        Raises:
            NotFoundError: there is no such AE title.
        """
        rules = self._rules
        if ae_title not in rules.titles:
            raise NotFoundError(f"there is no AE title {ae_title}")
        return Deposit(
            next(self._numbers),
            rules.titles[ae_title],
            provenance,
            intake=self._intake,
            limits=Limits(rules.dicom.max_instance, rules.reserve),
            policy=Policy(rules),
            stored=self._stored,
        )

    def stop(self, grace: float) -> None:
        """Stop listening, let associations end for `grace` seconds, then abort the rest."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._gate.close()
        self._acceptor.reload(self._rules, {})
        self._ports.close_others(())
        self._acceptor.stop(grace)

    def associations(self) -> int:
        """Return how many associations are established now."""
        return self._gate.inside

    def rejections(self) -> tuple[Rejection, ...]:
        """Return what was rejected since the start, the newest last."""
        return self._rejections.all()
