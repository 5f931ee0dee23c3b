"""The Storage SCPs: pynetdicom's acceptor, told what to negotiate and what to do with an instance.

Everything that touches pynetdicom's server side is in this file. Its threads call the handlers
here: `_requested` decides over an association before pynetdicom negotiates, `_store` takes an
instance in before its response is sent.
"""

import ipaddress
import itertools
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pydicom import Dataset
from pydicom import config as pydicom_config
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from dicom_adapter.config import AETitle, Settings
from dicom_adapter.errors import RefusedInstanceError, StartError, fingerprint
from dicom_adapter.receive import status
from dicom_adapter.receive.intake import Arrival, Intake
from dicom_adapter.receive.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_uid,
)
from dicom_adapter.receive.policy import (
    VERIFICATION,
    Caller,
    Policy,
    Proposal,
    Refusal,
    printable_ae_title,
)

log = structlog.get_logger()

_ABORT_SOURCE = {0: "the peer's application", 2: "the peer's or our DICOM stack"}


@dataclass
class _Conversation:
    """What is known of one association while it lasts; only its own thread writes it."""

    number: int
    address: str
    opened: float
    log: Any
    caller: Caller | None = None
    title: AETitle | None = None
    established: bool = False
    ended: bool = False
    stored: int = 0
    refused: int = 0


class Listener:
    """Listens on every configured port and answers C-ECHO and C-STORE there."""

    def __init__(
        self, settings: Settings, policy: Policy, intake: Intake, *, last_association: int
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._intake = intake
        self._numbers = itertools.count(last_association + 1)
        self._conversations: dict[Association, _Conversation] = {}
        self._lock = threading.Lock()
        self._servers: list[ThreadedAssociationServer] = []
        self._ae = self._application_entity()

    def _application_entity(self) -> AE:
        _quieten()
        dicom = self._settings.dicom
        ae = AE()
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_associations = dicom.max_associations
        ae.maximum_pdu_size = dicom.max_pdu
        ae.acse_timeout = dicom.timeouts.association
        ae.dimse_timeout = dicom.timeouts.idle
        ae.network_timeout = dicom.timeouts.idle
        for number, uid in enumerate(dicom.private_sop_classes, start=1):
            if uid_to_service_class(uid) is not StorageServiceClass:
                register_uid(uid, f"PrivateStorage{number}", StorageServiceClass)
        return ae

    def start(self) -> tuple[str, ...]:
        """Listen; return the HOST:PORT of every port, the first configured one first.

        Raises:
            StartError: a port is taken or may not be opened.
        """
        ports = dict.fromkeys(map(self._policy.port_of, self._settings.ae_titles.values()))
        try:
            for port in ports:
                self._servers.append(self._listen(port))
        except StartError:
            self.stop(0)
            raise
        return self.addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """The HOST:PORT of every port that is listened on."""
        return tuple(_address(*server.server_address[:2]) for server in self._servers)

    def _listen(self, port: int) -> ThreadedAssociationServer:
        host = self._settings.dicom.host

        def requested(event: evt.Event) -> None:
            self._requested(event, port)

        try:
            server = self._ae.start_server(
                (host, port),
                block=False,
                # Whatever goes wrong before `_requested` has decided, nothing can be stored.
                contexts=[build_context(VERIFICATION)],
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._opened),
                    (evt.EVT_REQUESTED, requested),
                    (evt.EVT_ACCEPTED, self._accepted),
                    (evt.EVT_REJECTED, self._rejected),
                    (evt.EVT_PDU_RECV, self._received),
                    (evt.EVT_PDU_SENT, self._sent),
                    (evt.EVT_RELEASED, self._released),
                    (evt.EVT_CONN_CLOSE, self._closed),
                    (evt.EVT_C_ECHO, self._echo),
                    (evt.EVT_C_STORE, self._store),
                ],
            )
            return cast("ThreadedAssociationServer", server)
        except OSError as error:
            raise StartError(
                f"cannot listen on {_address(host, port)}: {error.strerror}: stop what uses the "
                "port, or choose another under dicom.port"
            ) from error

    def stop(self, grace: float) -> None:
        """Stop listening, let associations end for `grace` seconds, then abort the rest."""
        associations = [a for server in self._servers for a in server.active_associations]
        for server in self._servers:
            server.shutdown()
        self._servers.clear()
        deadline = time.monotonic() + grace
        for association in associations:
            association.join(max(0.0, deadline - time.monotonic()))
        for association in associations:
            if association.is_alive():
                association.abort()

    def associations(self) -> int:
        """Return how many associations are established now."""
        with self._lock:
            return sum(c.established for c in self._conversations.values())

    # The handlers. pynetdicom swallows what a notification handler raises, so each must be whole.

    def _opened(self, event: evt.Event) -> None:
        address = _plain_address(cast("tuple[str, int]", event.address)[0])  # type: ignore[attr-defined]
        number = next(self._numbers)
        conversation = _Conversation(
            number=number,
            address=address,
            opened=time.monotonic(),
            log=log.bind(association=number, address=address),
        )
        with self._lock:
            self._conversations[event.assoc] = conversation

    def _requested(self, event: evt.Event, port: int) -> None:
        association = event.assoc
        conversation = self._conversation(association)
        primitive = cast("A_ASSOCIATE", association.requestor.primitive)
        caller = Caller(
            calling_ae_title=printable_ae_title(primitive.calling_ae_title or ""),
            called_ae_title=printable_ae_title(primitive.called_ae_title or ""),
            address=conversation.address,
            port=port,
        )
        conversation.caller = caller
        conversation.log = conversation.log.bind(
            calling=caller.calling_ae_title, called=caller.called_ae_title
        )
        decision = self._policy.admit(caller, port)
        if isinstance(decision, Refusal):
            conversation.ended = True
            conversation.log.warning(
                "association rejected",
                action="association.rejected",
                why=decision.why,
                rejection=f"{decision.result}/{decision.source}/{decision.diagnostic}",
            )
            association.acse.send_reject(decision.result, decision.source, decision.diagnostic)
            # Without this pynetdicom would go on to negotiate.
            association.kill()
            return
        conversation.title = decision
        association.acceptor.supported_contexts = _contexts(
            self._policy.contexts(decision, _proposals(primitive))
        )

    def _accepted(self, event: evt.Event) -> None:
        conversation = self._conversation(event.assoc)
        conversation.established = True
        refused = sorted(
            {str(context.abstract_syntax) for context in event.assoc.rejected_contexts}
        )
        conversation.log.info(
            "association accepted",
            action="association.accepted",
            contexts=len(event.assoc.accepted_contexts),
            **({"refused_contexts": [uid for uid in refused if is_uid(uid)]} if refused else {}),
        )

    def _rejected(self, event: evt.Event) -> None:
        # Ours are logged in `_requested`; this one is pynetdicom's own, the limit.
        conversation = self._conversation(event.assoc)
        conversation.ended = True
        why = f"more than dicom.max_associations={self._settings.dicom.max_associations} at once"
        if conversation.caller is not None:
            self._policy.remember(conversation.caller, why)
        conversation.log.warning(
            "association rejected", action="association.rejected", why=why, rejection="2/3/2"
        )

    def _received(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            self._aborted(event.assoc, event.pdu, "the peer")

    def _sent(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            self._aborted(event.assoc, event.pdu, "this service")

    def _aborted(self, association: Association, pdu: A_ABORT_RQ, by: str) -> None:
        conversation = self._conversation(association)
        conversation.ended = True
        conversation.log.warning(
            "association aborted",
            action="association.aborted",
            by=by,
            why=pdu.reason_str or _ABORT_SOURCE.get(pdu.source or 0, "no reason given"),
            abort=f"{pdu.source}/{pdu.reason_diagnostic}",
        )

    def _released(self, event: evt.Event) -> None:
        self._conversation(event.assoc).ended = True

    def _closed(self, event: evt.Event) -> None:
        with self._lock:
            conversation = self._conversations.pop(event.assoc, None)
        if conversation is None:
            return
        counts = {
            "stored": conversation.stored,
            "refused": conversation.refused,
            "seconds": round(time.monotonic() - conversation.opened, 3),
        }
        if conversation.established and not conversation.ended:
            conversation.log.warning(
                "connection lost: the peer closed it without release or abort",
                action="association.lost",
                **counts,
            )
        elif conversation.established:
            conversation.log.info("association ended", action="association.ended", **counts)
        elif not conversation.ended:
            conversation.log.info(
                "connection closed without an association", action="association.none"
            )

    def _echo(self, event: evt.Event) -> int:
        self._conversation(event.assoc).log.info("C-ECHO", action="echo")
        return status.SUCCESS

    def _store(self, event: evt.Event) -> Dataset:
        conversation = self._conversation(event.assoc)
        request = cast("C_STORE", event.request)
        title = conversation.title
        sop_class_uid = str(request.AffectedSOPClassUID)
        if title is None:
            return status.response(status.OUT_OF_RESOURCES, "the association was not admitted")
        if sop_class_uid in title.ignored_sop_classes:
            conversation.log.info(
                "instance ignored: its SOP class is in ignored_sop_classes",
                action="instance.ignored",
                sop_class=sop_class_uid,
            )
            return status.response(status.SUCCESS)
        if not is_uid(str(request.AffectedSOPInstanceUID)):
            return self._refuse(
                conversation, status.INVALID_SOP_INSTANCE, "Affected SOP Instance UID is no UID"
            )
        arrival = _arrival(conversation, title, event)
        try:
            instance_id = self._intake.store(arrival)
        except RefusedInstanceError as error:
            return self._refuse(conversation, status.status_of(error), str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours: the sender keeps its instance
            conversation.log.error(  # noqa: TRY400 - a traceback may quote the data set
                "instance not stored: internal error", action="instance.error", **fingerprint(error)
            )
            return self._refuse(conversation, status.OUT_OF_RESOURCES, "internal error")
        conversation.stored += 1
        conversation.log.debug(
            "instance stored" if instance_id else "instance is here already",
            action="instance.stored" if instance_id else "instance.duplicate",
            instance=instance_id,
            sop_class=sop_class_uid,
        )
        return status.response(status.SUCCESS)

    def _refuse(self, conversation: _Conversation, code: int, why: str) -> Dataset:
        conversation.refused += 1
        conversation.log.warning(
            "instance refused", action="instance.refused", status=f"0x{code:04X}", why=why
        )
        return status.response(code, why)

    def _conversation(self, association: Association) -> _Conversation:
        with self._lock:
            return self._conversations[association]


def _arrival(conversation: _Conversation, title: AETitle, event: evt.Event) -> Arrival:
    request = cast("C_STORE", event.request)
    originator = None
    if request.MoveOriginatorApplicationEntityTitle:
        originator = (
            printable_ae_title(request.MoveOriginatorApplicationEntityTitle),
            request.MoveOriginatorMessageID or 0,
        )
    return Arrival(
        ae_title=title.title,
        association=conversation.number,
        calling_ae_title=conversation.caller.calling_ae_title if conversation.caller else "",
        source_address=conversation.address,
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        data=request.DataSet.getbuffer() if request.DataSet else memoryview(b""),
        move_originator=originator,
    )


def _proposals(primitive: A_ASSOCIATE) -> Iterable[Proposal]:
    for context in primitive.presentation_context_definition_list:
        yield Proposal(str(context.abstract_syntax), tuple(map(str, context.transfer_syntax)))


def _contexts(accepted: Any) -> list[Any]:  # noqa: ANN401 - pynetdicom's contexts
    return [build_context(uid, syntaxes) for uid, syntaxes in accepted.items() if syntaxes]


def _plain_address(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _WithoutContent(logging.Handler):
    """Says that pynetdicom complained, and where in its code, but not what it printed.

    Its messages quote PDUs and exceptions, and so patient data.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on without its message."""
        log.debug(
            "pynetdicom complains",
            action="pynetdicom",
            at=f"{record.module}:{record.lineno}",
            error=record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None,
        )


def _quieten() -> None:
    """Set the two libraries' process-wide switches, in this one place."""
    # The default handlers format every PDU and message for a log that nobody reads.
    _config.LOG_HANDLER_LEVEL = "none"
    # Values are stored as they came, never judged; a warning would print them.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    for name in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _WithoutContent) for handler in logger.handlers):
            logger.addHandler(_WithoutContent(logging.WARNING))
        logger.propagate = False
