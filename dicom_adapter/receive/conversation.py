"""One association while it lasts: who talks, what was done, and every line that is said of it."""

import threading
import time
from typing import Any, cast

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RQ

from dicom_adapter.config import AETitle, DicomTimeouts
from dicom_adapter.errors import fingerprint
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.receive.pdu import AssociateRequest
from dicom_adapter.receive.policy import Caller, Refusal

log = structlog.get_logger()

_PEER_PROGRAM = 0

# What the two threads of an association carry, so that a line which a library logs in one of them
# can be told with the association's number.
_CARRIED = "dicom_adapter_conversation"


class Conversation:
    """An association with its number; pynetdicom's two threads of it report here."""

    def __init__(self, number: int, address: str, port: int, timeouts: DicomTimeouts) -> None:
        self.number = number
        self.log: Any = log.bind(association=number, address=address)
        self.caller = Caller("", "", address, port)
        #: The AE title that it has reached; None until it is admitted.
        self.title: AETitle | None = None
        #: Set when this service ends it: then an abort is nobody's fault.
        self.stopping = False
        #: Set when the connection is closed, though the threads may still be at work.
        self.disconnected = threading.Event()
        self._address = address
        self._port = port
        self._timeouts = timeouts
        self._opened = time.monotonic()
        self._accepted = False
        self._rejected = False
        self._leaving = False
        self._aborting = False
        self._stored = 0
        self._refused = 0
        self._ignored = 0
        self._unanswered = False

    def follow(self, association: Association) -> None:
        """Listen to an association that has not started yet."""
        for thread in (association, association.dul):
            setattr(thread, _CARRIED, self)
        association.bind(evt.EVT_ACCEPTED, self._on_accepted)
        association.bind(evt.EVT_PDU_RECV, self._on_received)
        association.bind(evt.EVT_PDU_SENT, self._on_sent)
        association.bind(evt.EVT_CONN_CLOSE, self._on_disconnected)

    @property
    def counts(self) -> bool:
        """True while it counts against `max_associations`."""
        return self.title is not None and not self._leaving

    @property
    def established(self) -> bool:
        """True while instances may come."""
        return self._accepted and not self._leaving

    # What the listener decides.

    def rejected(self, refusal: Refusal) -> None:
        """Say why it is rejected."""
        self._rejected = True
        self.log.warning(
            "association rejected",
            action="association.rejected",
            why=refusal.why,
            rejection=f"{refusal.result}/{refusal.source}/{refusal.diagnostic}",
            port=self._port,
        )

    def stored(self, instance_id: str | None, sop_class_uid: str) -> None:
        """Count an instance that is safe; no id: the same bytes wait here already."""
        self._stored += 1
        self._unanswered = instance_id is not None
        self.log.debug(
            "instance stored" if instance_id else "instance is here already",
            action="instance.stored" if instance_id else "instance.duplicate",
            instance=instance_id,
            sop_class=sop_class_uid,
        )

    def answered(self) -> bool:
        """Tell, once for each, whether the sender has had its answer for a stored instance."""
        was, self._unanswered = self._unanswered, False
        return was

    def refused(self, status: int, why: str) -> None:
        """Count an instance that the sender keeps, and say why."""
        self._refused += 1
        self.log.warning(
            "instance refused", action="instance.refused", status=f"0x{status:04X}", why=why
        )

    def ignored(self, sop_class_uid: str) -> None:
        """Count an instance that is answered with success, and not kept."""
        self._ignored += 1
        self.log.info(
            "instance ignored: its SOP class is in ignored_sop_classes",
            action="instance.ignored",
            sop_class=sop_class_uid,
        )

    def shut_out(self, why: str) -> None:
        """Say why the peer can store nothing, though it is let in."""
        self.log.warning("nothing can be stored", action="association.useless", why=why)

    def closed(self) -> None:
        """Say how it went, now that both of its threads have done their work."""
        seconds = round(time.monotonic() - self._opened, 3)
        if not self._accepted:
            if not self._rejected:
                self.log.info(
                    "connection closed without an association",
                    action="association.none",
                    seconds=seconds,
                )
            return
        counts = {
            "stored": self._stored,
            "refused": self._refused,
            "ignored": self._ignored,
            "seconds": seconds,
        }
        if self._leaving:
            self.log.info("association ended", action="association.ended", **counts)
        else:
            why = "the service stops" if self.stopping else "closed without release or abort"
            self.log.warning("connection lost", action="association.lost", why=why, **counts)

    def broken(self, error: Exception) -> None:
        """Say that pynetdicom gave up on what the peer sent."""
        self._aborting = self._leaving = True
        self.log.warning(
            "association aborted",
            action="association.aborted",
            by="this service",
            why="the peer broke the protocol",
            **fingerprint(error),
        )

    # What pynetdicom reports. It swallows what these raise, so each must be whole.

    def _on_received(self, event: evt.Event) -> None:
        pdu = event.pdu
        if isinstance(pdu, AssociateRequest):
            self.caller = Caller(pdu.calling, pdu.called, self._address, self._port)
            self.log = self.log.bind(
                calling=self.caller.calling_ae_title, called=self.caller.called_ae_title
            )
        elif isinstance(pdu, A_RELEASE_RQ):
            # Before the answer, not after it: the peer may come again as soon as it has that.
            self._leaving = True
        elif isinstance(pdu, A_ABORT_RQ):
            self._aborted(pdu, "the peer", _reason(pdu, "its application gave up"))

    def _on_sent(self, event: evt.Event) -> None:
        pdu = event.pdu
        if isinstance(pdu, A_ABORT_RQ):
            self._aborted(pdu, "this service", self._own_reason(event.assoc, pdu))
        elif isinstance(pdu, A_ASSOCIATE_RJ) and not self._rejected:
            # pynetdicom's own: a protocol version that nobody speaks.
            result, source, reason = pdu.result or 0, pdu.source or 0, pdu.reason_diagnostic or 0
            self.rejected(Refusal(result, source, reason, pdu.reason_str))

    def _on_disconnected(self, event: evt.Event) -> None:
        self.disconnected.set()
        dul = event.assoc.dul
        if event.assoc.requestor.primitive is None and dul.to_user_queue.empty():
            # It closed before it asked for anything. pynetdicom's other thread would go on waiting
            # for the request until its timeout; this is what it gets then.
            cast("Any", dul.to_user_queue).put(None)

    def _on_accepted(self, event: evt.Event) -> None:
        self._accepted = True
        refused = [str(context.abstract_syntax) for context in event.assoc.rejected_contexts]
        self.log.info(
            "association accepted",
            action="association.accepted",
            contexts=len(event.assoc.accepted_contexts),
            **({"refused_contexts": len(refused)} if refused else {}),
        )
        # A scanner proposes a hundred, with every association.
        self.log.debug(
            "presentation contexts refused",
            action="association.contexts",
            # Only what cannot hold anything else: what a peer proposes is not yet judged.
            sop_classes=sorted({uid for uid in refused if is_uid(uid)}),
        )

    def _aborted(self, pdu: A_ABORT_RQ, by: str, why: str) -> None:
        if self._aborting:
            # pynetdicom answers whatever still comes with another one.
            return
        self._aborting = self._leaving = True
        self.log.warning(
            "association aborted",
            action="association.aborted",
            by=by,
            why=why,
            abort=f"{pdu.source}/{pdu.reason_diagnostic}",
        )

    def _own_reason(self, association: Association, pdu: A_ABORT_RQ) -> str:
        if self.stopping:
            return "the service stops"
        if self._accepted and association.dul.idle_timer_expired():
            return f"no message for dicom.timeouts.idle={self._timeouts.idle:g} s"
        return _reason(pdu, "the peer broke the protocol")


def _reason(pdu: A_ABORT_RQ, without: str) -> str:
    # Only the protocol machine gives reasons, and 0 is none (PS3.8 table 9-26).
    given = pdu.source != _PEER_PROGRAM and pdu.reason_diagnostic
    return str(pdu.reason_str) if given else without


def log_here() -> Any:  # noqa: ANN401 - structlog's loggers have no common type
    """Return the log of the association whose thread this is, or the general one."""
    conversation = getattr(threading.current_thread(), _CARRIED, None)
    return log if conversation is None else cast("Any", conversation.log)
