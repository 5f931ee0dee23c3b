"""The messages of one association: each is assembled, answered, and then the next one may come."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dicom_adapter.config import DicomSettings
from dicom_adapter.errors import (
    NoInstanceUIDError,
    RefusedInstanceError,
    UnreadableInstanceError,
    UnsupportedClassError,
)
from dicom_adapter.receive import dimse, pdu, status
from dicom_adapter.receive.admission import Gate
from dicom_adapter.receive.conversation import Conversation
from dicom_adapter.receive.dimse import Command
from dicom_adapter.receive.intake import Arrival, Intake, Limits, Outcome, Reception
from dicom_adapter.receive.message import Message
from dicom_adapter.receive.negotiation import Context
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.receive.pdu import ProtocolError
from dicom_adapter.receive.policy import VERIFICATION, Caller, Title


@dataclass(frozen=True)
class Store:
    """Where instances go."""

    intake: Intake
    #: What an instance may take as it is configured now: the disk is full for everybody.
    limits: Callable[[], Limits]
    #: Keeps a finished reception; the outcome comes in the thread that the messages come in.
    keep: Callable[[Reception, Callable[[Outcome], None]], None]
    #: Told of an AE title that has a new instance, after the answer to its sender.
    stored: Callable[[str], None]


@dataclass(frozen=True)
class Parties:
    """Who sends to whom, and by which limits."""

    caller: Caller
    title: Title
    dicom: DicomSettings


class Peer(Protocol):
    """The other side, as an association needs it."""

    @property
    def certificate(self) -> frozenset[str]:
        """The names in its certificate: none without one that was verified."""
        ...

    def send(self, data: bytes) -> None:
        """Send bytes, now or as soon as the peer takes them."""

    def hang_up(self) -> None:
        """Have the peer close the connection, or close it; nothing more is received."""

    def resume(self) -> None:
        """Go on receiving, after what was being prepared is answered."""


class Exchange:
    """Takes messages one at a time, and answers each."""

    def __init__(
        self,
        parties: Parties,
        contexts: Mapping[int, Context],
        store: Store,
        *,
        gate: Gate,
        conversation: Conversation,
        peer: Peer,
    ) -> None:
        self._parties = parties
        self._contexts = contexts
        self._store = store
        self._gate = gate
        self._conversation = conversation
        self._peer = peer
        self._message: Message | None = None
        #: True while an instance is being kept: until it is answered nothing more is taken.
        self.busy = False
        #: When the last message was answered, on the monotonic clock.
        self.answered_at = time.monotonic()

    @property
    def is_between(self) -> bool:
        """True where a message has ended and none has begun."""
        return self._message is None

    def discard(self) -> None:
        """Leave nothing of a message that will never be whole."""
        message, self._message = self._message, None
        if message is not None:
            message.discard()

    def flush(self) -> None:
        """Write what came of a data set before the buffer that it lies in is used again."""
        if self._message is not None:
            self._message.write()

    def is_too_slow(self) -> bool:
        """Tell whether the message comes slower than it may, once it has had time to begin."""
        message, dicom = self._message, self._parties.dicom
        if message is None:
            return False
        seconds = time.monotonic() - message.began
        return seconds > dicom.timeouts.progress and message.received < dicom.min_rate * seconds

    def take_fragment(
        self, context: int, data: memoryview, *, is_command: bool, is_end: bool
    ) -> None:
        """Take the next bytes of a message; ProtocolError when they cannot be.

        A message stays with its presentation context (PS3.7 section 6.3.1, PS3.8 annex E.2).
        """
        message = self._message
        if message is None:
            if not is_command or context not in self._contexts:
                raise ProtocolError(pdu.UNEXPECTED_PARAMETER)
            message = self._message = Message(
                self._contexts[context], self._parties.dicom.max_instance
            )
        elif context != message.context.number or is_command is (message.command is not None):
            raise ProtocolError(pdu.UNEXPECTED_PARAMETER)
        if is_command:
            message.add_to_command(data)
            if is_end:
                self._commanded(message, message.end_command())
        else:
            message.add_to_data_set(data)
            if is_end and message.command is not None:
                message.write()
                self._complete(message, message.command)

    def _commanded(self, message: Message, command: Command) -> None:
        if command.field_ == dimse.C_STORE_RQ:
            self._begin_store(message, command)
        if not command.has_data_set:
            self._complete(message, command)

    def _begin_store(self, message: Message, command: Command) -> None:
        """Refuse an instance by its command alone, or begin to receive it."""
        context, title = message.context, self._parties.title
        if command.sop_class_uid != context.sop_class_uid or context.sop_class_uid == VERIFICATION:
            message.refuse(
                UnsupportedClassError("SOP class is not that of the presentation context")
            )
        elif not is_uid(command.sop_instance_uid):
            message.refuse(NoInstanceUIDError("Affected SOP Instance UID is no UID"))
        elif context.sop_class_uid in title.ignored_sop_classes:
            # Read to its end, and kept nowhere.
            return
        elif not command.has_data_set:
            message.refuse(UnreadableInstanceError("the data set is missing"))
        else:
            self._begin_reception(message, command)

    def _begin_reception(self, message: Message, command: Command) -> None:
        caller = self._parties.caller
        arrival = Arrival(
            ae_title=self._parties.title.title,
            association=self._conversation.number,
            calling_ae_title=caller.calling_ae_title,
            source_address=caller.address,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=message.context.transfer_syntax_uid,
            move_originator=command.move_originator,
            resend=self._parties.title.resend,
        )
        try:
            message.reception = self._store.intake.begin(arrival, self._store.limits())
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this instance alone
            message.refuse(error)

    def _complete(self, message: Message, command: Command) -> None:
        """Answer a message that is here whole."""
        self._message = None
        if command.field_ == dimse.C_STORE_RQ:
            self._store_instance(message, command)
        elif command.field_ == dimse.C_ECHO_RQ:
            self._echo(message, command)
        elif command.field_ == dimse.C_CANCEL_RQ or command.field_ & dimse.IS_RESPONSE:
            self._conversation.unasked(command.field_)
        else:
            self._conversation.unserved(command.field_)
            self._answer(message, command, status.UNRECOGNIZED_OPERATION)

    def _echo(self, message: Message, command: Command) -> None:
        if message.context.sop_class_uid != VERIFICATION:
            self._conversation.unserved(command.field_)
            self._answer(message, command, status.SOP_CLASS_NOT_SUPPORTED)
            return
        self._conversation.echoed()
        self._answer(message, command, status.SUCCESS)

    def _store_instance(self, message: Message, command: Command) -> None:
        reception = message.reception
        if reception is not None:
            try:
                reception.finish()
            except Exception as error:  # noqa: BLE001 - a fault of ours costs this instance alone
                message.refuse(error)
            else:
                self.busy = True
                self._store.keep(reception, lambda outcome: self._kept(message, command, outcome))
                return
        if message.error is None:
            self._conversation.ignored(command.sop_class_uid)
            self._answer(message, command, status.SUCCESS)
        else:
            self._refuse(message, command, message.error)

    def _kept(self, message: Message, command: Command, outcome: Outcome) -> None:
        try:
            self._answer_kept(message, command, outcome)
        finally:
            self.busy = False
            self._peer.resume()

    def _answer_kept(self, message: Message, command: Command, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._refuse(message, command, outcome.error)
            return
        if outcome.recorded is not None:
            self._conversation.stored(outcome.recorded, command.sop_class_uid)
        self._answer(message, command, status.SUCCESS)
        # After the answer: it may not reach the peer, but the instance is here all the same.
        self._store.stored(self._parties.title.title)

    def _refuse(self, message: Message, command: Command, error: Exception) -> None:
        code, why = status.status_of(error), status.comment_of(error)
        if not isinstance(error, RefusedInstanceError):
            self._conversation.failed(error)
        self._conversation.refused(code, why)
        kind = status.kind_of(why)
        caller = self._parties.caller
        self._gate.remember(caller, f"instance refused with 0x{code:04X}: {kind}")
        self._answer(message, command, code, why)

    def _answer(self, message: Message, command: Command, code: int, comment: str = "") -> None:
        self._peer.send(dimse.response(message.context.number, command, code, comment))
        self.answered_at = time.monotonic()
