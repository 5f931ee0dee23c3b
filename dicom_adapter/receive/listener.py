"""The Storage SCPs: pynetdicom's acceptor, told what to negotiate and what to do with an instance.

Its threads call the handlers here: `_requested` decides over an association before pynetdicom
negotiates, `_store` takes an instance in before its response is sent.
"""

import ipaddress
import itertools
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pydicom import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import ThreadedAssociationServer

from dicom_adapter.config import AETitle, Settings
from dicom_adapter.errors import RefusedInstanceError, StartError, fingerprint
from dicom_adapter.receive import libraries, status, threads
from dicom_adapter.receive.conversation import Conversation
from dicom_adapter.receive.intake import Arrival, Intake
from dicom_adapter.receive.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_uid,
)
from dicom_adapter.receive.pdu import printable_ae_title
from dicom_adapter.receive.policy import VERIFICATION, Policy, Refusal, choose_transfer_syntax

# How long the threads of an association may take to end once it is aborted, in seconds.
ABORT_SECONDS = 1.0

_PLACE = re.compile(r" at byte \d+")


class Listener:
    """Listens on every configured port and answers C-ECHO and C-STORE there."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        intake: Intake,
        *,
        last_association: int,
        stored: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._intake = intake
        self._stored = stored
        self._numbers = itertools.count(last_association + 1)
        self._conversations: dict[Association, Conversation] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._servers: list[ThreadedAssociationServer] = []
        self._ae = self._application_entity()

    def _application_entity(self) -> AE:
        dicom = self._settings.dicom
        ignored = (title.ignored_sop_classes for title in self._settings.ae_titles.values())
        libraries.prepare({*dicom.private_sop_classes, *itertools.chain.from_iterable(ignored)})
        ae = AE()
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        # `_admit` keeps the limit: pynetdicom counts connections that are no associations yet,
        # and those whose threads have not quite ended.
        ae.maximum_associations = sys.maxsize
        ae.maximum_pdu_size = dicom.max_pdu
        ae.acse_timeout = dicom.timeouts.association
        ae.dimse_timeout = dicom.timeouts.idle
        ae.network_timeout = dicom.timeouts.idle
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
        try:
            server = self._ae.start_server(
                (host, port),
                block=False,
                # Whatever goes wrong before `_requested` has decided, nothing can be stored.
                contexts=[build_context(VERIFICATION)],
                evt_handlers=[(evt.EVT_CONN_OPEN, self._opened, [port])],
            )
            return cast("ThreadedAssociationServer", server)
        except OSError as error:
            raise StartError(
                f"cannot listen on {_address(host, port)}: {error.strerror}: stop what uses the "
                "port, or choose another (dicom.port, or the AE title's own port)"
            ) from error

    def stop(self, grace: float) -> None:
        """Stop listening, let associations end for `grace` seconds, then abort the rest."""
        with self._lock:
            self._stopping = True
        for server in self._servers:
            _close(server)
        self._servers.clear()
        with self._lock:
            left = dict(self._conversations)
        threads.join(left, grace)
        with self._lock:
            left = dict(self._conversations)
        threads.end(left, ABORT_SECONDS)

    def associations(self) -> int:
        """Return how many associations are established now."""
        with self._lock:
            return sum(c.established for c in self._conversations.values())

    # The handlers. pynetdicom swallows what a notification handler raises, so each must be whole.

    def _opened(self, event: evt.Event, port: int) -> None:
        association = event.assoc
        address = cast("tuple[str, int]", event.address)[0]  # type: ignore[attr-defined]
        conversation = Conversation(
            next(self._numbers), _plain_address(address), port, self._settings.dicom.timeouts
        )
        conversation.follow(association)
        association.bind(evt.EVT_REQUESTED, self._requested, [conversation])
        association.bind(evt.EVT_ACCEPTED, self._accepted, [conversation])
        association.bind(evt.EVT_DIMSE_RECV, _want_one_instance_uid)
        association.bind(evt.EVT_C_ECHO, self._echo, [conversation])
        association.bind(evt.EVT_C_STORE, self._store, [conversation])
        association.bind(evt.EVT_PDU_SENT, self._answered, [conversation])
        with self._lock:
            self._conversations[association] = conversation

        def ended() -> None:
            with self._lock:
                del self._conversations[association]
            conversation.closed()
            # The answer may not have reached the peer; the instance is here all the same.
            self._hand_on(conversation)

        threads.watch(association, conversation, ended)

    def _requested(self, event: evt.Event, conversation: Conversation) -> None:
        association = event.assoc
        decision = self._admit(conversation)
        if isinstance(decision, Refusal):
            self._policy.remember(conversation.caller, decision.why)
            conversation.rejected(decision)
            association.acse.send_reject(decision.result, decision.source, decision.diagnostic)
            # Without this pynetdicom would go on to negotiate.
            association.kill()
            return
        self._negotiate(association, decision)

    def _admit(self, conversation: Conversation) -> AETitle | Refusal:
        decision = self._policy.admit(conversation.caller)
        if isinstance(decision, Refusal):
            return decision
        limit = self._settings.dicom.max_associations
        with self._lock:
            if self._stopping:
                return Refusal(2, 3, 1, "the service stops")
            if sum(c.counts for c in self._conversations.values()) >= limit:
                return Refusal(2, 3, 2, f"more than dicom.max_associations={limit} at once")
            # Under the lock: from here on it counts.
            conversation.title = decision
        return decision

    def _negotiate(self, association: Association, title: AETitle) -> None:
        supported: dict[str, set[str]] = {}
        primitive = cast("A_ASSOCIATE", association.requestor.primitive)
        for context in primitive.presentation_context_definition_list:
            sop_class = str(context.abstract_syntax)
            if not self._policy.accepts(title, sop_class):
                continue
            chosen = choose_transfer_syntax(map(str, context.transfer_syntax))
            syntaxes = supported.setdefault(sop_class, set())
            if chosen is not None:
                syntaxes.add(chosen)
                # Narrowed to the one we take: pynetdicom knows one order for all contexts of a
                # SOP class, and it is ours, not the proposer's.
                context.transfer_syntax = [chosen]
        association.acceptor.supported_contexts = [
            # Without any, build_context takes pynetdicom's default ones; none of them is proposed.
            build_context(sop_class, sorted(syntaxes) or None)
            for sop_class, syntaxes in supported.items()
        ]

    def _accepted(self, event: evt.Event, conversation: Conversation) -> None:
        if conversation.title is None:
            return
        accepted, refused = (
            [str(context.abstract_syntax) for context in contexts]
            for contexts in (event.assoc.accepted_contexts, event.assoc.rejected_contexts)
        )
        why = self._policy.shut_out(conversation.title, accepted, refused)
        if why:
            conversation.shut_out(why)
            self._policy.remember(conversation.caller, why)

    def _answered(self, event: evt.Event, conversation: Conversation) -> None:
        del event
        self._hand_on(conversation)

    def _hand_on(self, conversation: Conversation) -> None:
        """Tell of a stored instance, after its answer and not before it."""
        if conversation.answered() and conversation.title is not None:
            self._stored(conversation.title.title)

    def _echo(self, event: evt.Event, conversation: Conversation) -> int:
        del event
        conversation.log.info("C-ECHO", action="echo")
        return status.SUCCESS

    def _store(self, event: evt.Event, conversation: Conversation) -> Dataset:
        request = cast("C_STORE", event.request)
        title = conversation.title
        sop_class_uid = str(request.AffectedSOPClassUID)
        if title is None:
            return self._refuse(conversation, status.OUT_OF_RESOURCES, "association not admitted")
        if sop_class_uid != str(event.context.abstract_syntax):
            return self._refuse(
                conversation,
                status.SOP_CLASS_NOT_SUPPORTED,
                "SOP class is not that of the presentation context",
            )
        if sop_class_uid in title.ignored_sop_classes:
            conversation.ignored(sop_class_uid)
            return status.response(status.SUCCESS)
        if not is_uid(str(request.AffectedSOPInstanceUID)):
            answer = self._refuse(
                conversation, status.INVALID_SOP_INSTANCE, "Affected SOP Instance UID is no UID"
            )
            # It would be repeated in the response, whatever it is.
            answer.AffectedSOPInstanceUID = ""
            return answer
        return self._take_in(_arrival(conversation, title, event), conversation)

    def _take_in(self, arrival: Arrival, conversation: Conversation) -> Dataset:
        try:
            instance_id = self._intake.store(arrival)
        except RefusedInstanceError as error:
            return self._refuse(conversation, status.status_of(error), str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours: the sender keeps its instance
            conversation.log.error(  # noqa: TRY400 - a traceback may quote the data set
                "instance not stored: internal error", action="instance.error", **fingerprint(error)
            )
            return self._refuse(conversation, status.OUT_OF_RESOURCES, "internal error")
        conversation.stored(instance_id, arrival.sop_class_uid)
        return status.response(status.SUCCESS)

    def _refuse(self, conversation: Conversation, code: int, why: str) -> Dataset:
        conversation.refused(code, why)
        # Not where: a byte's number would make every instance a kind of its own.
        kind = _PLACE.sub("", why)
        self._policy.remember(conversation.caller, f"instance refused with 0x{code:04X}: {kind}")
        return status.response(code, why)


def _want_one_instance_uid(event: evt.Event) -> None:
    """Have a C-STORE with no or several SOP Instance UIDs refused by `_store`.

    pynetdicom, which makes its request of the message after this, would answer nothing at all to
    the first, and take the first UID of the second.
    """
    if isinstance(event.message, C_STORE_RQ):
        command = event.message.command_set
        uid = command.get("AffectedSOPInstanceUID")
        if not uid or not isinstance(uid, str):
            # Not an empty one: pynetdicom takes that for none.
            command.AffectedSOPInstanceUID = "?"


def _arrival(conversation: Conversation, title: AETitle, event: evt.Event) -> Arrival:
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
        calling_ae_title=conversation.caller.calling_ae_title,
        source_address=conversation.caller.address,
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        data=request.DataSet.getbuffer() if request.DataSet else memoryview(b""),
        move_originator=originator,
    )


def _close(server: ThreadedAssociationServer) -> None:
    if server.socket is not None:
        # This wakes the thread that accepts; by itself it looks only twice a second whether to end.
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
    server.shutdown()


def _plain_address(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
