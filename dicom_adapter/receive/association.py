"""The acceptor's side of an association: the upper layer's states (PS3.8 section 9.2), and DIMSE.

It knows no socket: bytes come in by `receive`, and go out by its `Peer`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from dicom_adapter.config import DicomSettings
from dicom_adapter.errors import fingerprint
from dicom_adapter.receive import pdu
from dicom_adapter.receive.admission import Gate
from dicom_adapter.receive.conversation import PEER, US, Conversation
from dicom_adapter.receive.exchange import Exchange, Parties, Peer, Store
from dicom_adapter.receive.framing import Framing
from dicom_adapter.receive.identity import Checked, Identity, Unproven, User, proposed
from dicom_adapter.receive.negotiation import accept
from dicom_adapter.receive.pdu import AssociateRequest, ProtocolError
from dicom_adapter.receive.policy import Caller, Policy, Refusal


@dataclass(frozen=True)
class Services:
    """What the associations of a listener share."""

    dicom: DicomSettings
    policy: Policy
    gate: Gate
    store: Store
    #: Checks who a peer says it is, and tells the loop whether that is so.
    check: Callable[[Identity, Checked], None]


class State(Enum):
    """Where an association stands (PS3.8 section 9.2.2)."""

    AWAITING = "Sta2: an A-ASSOCIATE-RQ is awaited"
    ESTABLISHED = "Sta6: data may come"
    ENDED = "Sta13: the connection is about to close"


_EXPECTED = {
    State.AWAITING: (pdu.ASSOCIATE_RQ, pdu.ABORT),
    State.ESTABLISHED: (pdu.P_DATA, pdu.RELEASE_RQ, pdu.ABORT),
    State.ENDED: (),
}
_LENGTHS = {
    pdu.ASSOCIATE_RQ: (68, pdu.LONGEST_ASSOCIATE_RQ),
    pdu.RELEASE_RQ: (4, 4),
    pdu.ABORT: (4, 4),
}


class Association:
    """One association, from the connection's opening to its end."""

    def __init__(self, services: Services, peer: Peer, conversation: Conversation) -> None:
        self.conversation = conversation
        self._services = services
        self._peer = peer
        self._state = State.AWAITING
        self._framing = Framing(self)
        self._exchange: Exchange | None = None
        self._caller: Caller | None = None
        self._lost = ""
        self._is_checking = False
        self._opened = self._last_byte = time.monotonic()

    @property
    def is_established(self) -> bool:
        """True while instances may come."""
        return self._state is State.ESTABLISHED

    @property
    def busy(self) -> bool:
        """True while an answer is being prepared: until then nothing more is taken."""
        return self._is_checking or (self._exchange is not None and self._exchange.busy)

    # From the connection.

    def receive(self, data: memoryview) -> int:
        """Take bytes of the peer; return how many were taken: all of them, unless it got busy."""
        self._last_byte = time.monotonic()
        try:
            taken = self._framing.feed(data)
            if self._exchange is not None:
                self._exchange.flush()
        except ProtocolError as error:
            # What still comes after the end is passed over (PS3.8 table 9-10: Sta13, AA-6).
            if self._state is not State.ENDED:
                self._abort(error.reason, f"the peer broke the protocol: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a peer sends, it ends nothing else
            self._abort(pdu.NOT_SPECIFIED, "internal error", **fingerprint(error))
        else:
            if self._exchange is not None and self._exchange.is_too_slow():
                self.abort("a message comes slower than dicom.min_rate")
            return taken
        return len(data)

    def wait_anew(self) -> None:
        """Give the peer its whole time again: it has been us who did not read."""
        self._last_byte = time.monotonic()

    def deadline(self) -> float | None:
        """Return when it expires, on the monotonic clock; None while the peer waits for us."""
        timeouts = self._services.dicom.timeouts
        if self._is_checking:
            return None
        if self._state is State.AWAITING:
            return self._opened + timeouts.association
        if self._state is State.ENDED or self._exchange is None or self._exchange.busy:
            return None
        if self._is_within_message:
            return self._last_byte + timeouts.progress
        return self._exchange.answered_at + timeouts.idle

    @property
    def _is_within_message(self) -> bool:
        within = self._exchange is not None and not self._exchange.is_between
        return within or not self._framing.is_between

    def expire(self) -> None:
        """End it, since its deadline has passed."""
        timeouts = self._services.dicom.timeouts
        if self._state is State.AWAITING:
            # Without an A-ABORT: there is no association yet (PS3.8 section 9.2, AA-2).
            self.lost(f"no association in dicom.timeouts.association={timeouts.association:g} s")
            self._peer.hang_up()
        elif self._is_within_message:
            self.abort(f"no byte of a message for dicom.timeouts.progress={timeouts.progress:g} s")
        else:
            self.abort(f"no message for dicom.timeouts.idle={timeouts.idle:g} s")

    def abort(self, why: str) -> None:
        """End it by our own decision."""
        self._abort(pdu.NOT_SPECIFIED, why)

    def lost(self, why: str) -> None:
        """Take note that the connection is gone, or is to be closed, and why."""
        self._lost = self._lost or why
        self._end()

    def untrusted(self, why: str) -> None:
        """Take note that there will be none, since TLS could not be agreed upon, and why."""
        self.conversation.untrusted(why)
        self._end()

    def closed(self) -> None:
        """Sum it up, once the connection is closed and nothing is being prepared any more."""
        self.conversation.closed(self._lost)

    # From the framing.

    def begin_pdu(self, kind: int, length: int) -> None:
        """Judge a PDU by its header alone: its kind in this state, and its length."""
        if kind not in _EXPECTED[self._state]:
            raise ProtocolError(pdu.UNEXPECTED)
        if kind == pdu.P_DATA:
            shortest, longest = 0, self._services.dicom.max_pdu
        else:
            shortest, longest = _LENGTHS[kind]
        if not shortest <= length <= longest:
            raise ProtocolError(pdu.INVALID_PARAMETER)

    def take_pdu(self, kind: int, body: bytes) -> None:
        """Take a whole PDU other than P-DATA."""
        if kind == pdu.ASSOCIATE_RQ:
            self._requested(pdu.decode_associate_rq(body))
            return
        # Counted as outside before the answer: the peer may come again as soon as it has that.
        self._end()
        if kind == pdu.RELEASE_RQ:
            self.conversation.released()
            self._peer.send(pdu.release_rp())
        else:
            why = pdu.abort_reason(body) or "its application gave up"
            self.conversation.aborted(PEER, why, f"{body[2]}/{body[3]}")
        self._peer.hang_up()

    def take_fragment(
        self, context: int, data: memoryview, *, is_command: bool, is_end: bool
    ) -> None:
        """Take the next bytes of a message."""
        if self._exchange is None:
            raise ProtocolError(pdu.UNEXPECTED)
        self._exchange.take_fragment(context, data, is_command=is_command, is_end=is_end)

    # How it begins and ends.

    def _requested(self, request: AssociateRequest) -> None:
        certificate = self._peer.certificate
        caller = self.conversation.requested(request.calling, request.called, certificate)
        identity = proposed(request.primitive)
        found = _refuse_upper_layer(request) or self._services.policy.admit(caller)
        if isinstance(found, Refusal):
            # Who gets no further anyhow need not be checked.
            self._admit(request, caller)
        elif identity is not None and identity.is_checked(self._services.dicom):
            self._is_checking = True
            self._services.check(identity, partial(self._checked, request, caller, identity))
        elif found.requires_user:
            self._refuse_user(
                caller,
                Refusal(1, 1, 1, "no user identity with a proof, and one is required"),
            )
        else:
            self._admit(request, caller)

    def _checked(
        self, request: AssociateRequest, caller: Caller, claimed: Identity, found: User | Unproven
    ) -> None:
        """Go on with an association, now that its user identity is checked."""
        self._is_checking = False
        try:
            if self._state is not State.AWAITING:
                return
            if isinstance(found, Unproven):
                # PS3.7 section D.3.3.7.1: permanent, by the ACSE related function.
                self._refuse_user(caller, Refusal(1, 2, 1, f"user identity: {found.why}"))
            else:
                self.conversation.identified(found.name)
                self._admit(request, caller, answers_user=claimed.wants_answer)
        finally:
            self._peer.resume()

    def _refuse_user(self, caller: Caller, refusal: Refusal) -> None:
        self._services.gate.remember(caller, refusal.why)
        self._reject(refusal)

    def _admit(
        self, request: AssociateRequest, caller: Caller, *, answers_user: bool = False
    ) -> None:
        decision = _refuse_upper_layer(request) or self._services.gate.admit(caller)
        if isinstance(decision, Refusal):
            self._reject(decision)
            return
        self._caller = caller
        services = self._services
        accepted = accept(
            request,
            decision,
            caller,
            services.policy,
            services.dicom.max_pdu,
            answers_user=answers_user,
        )
        self._exchange = Exchange(
            Parties(caller, decision, services.dicom),
            {context.number: context for context in accepted.contexts},
            services.store,
            gate=services.gate,
            conversation=self.conversation,
            peer=self._peer,
        )
        self._state = State.ESTABLISHED
        self.conversation.accepted(len(accepted.contexts), accepted.refused)
        if accepted.shut_out:
            self.conversation.shut_out(accepted.shut_out)
            services.gate.remember(caller, accepted.shut_out)
        self._peer.send(accepted.answer)

    def _reject(self, refusal: Refusal) -> None:
        self._end()
        self.conversation.rejected(refusal)
        self._peer.send(pdu.associate_rj(refusal.result, refusal.source, refusal.diagnostic))
        self._peer.hang_up()

    def _abort(self, reason: int, why: str, **details: str) -> None:
        self._end()
        self.conversation.aborted(US, why, f"{pdu.SERVICE_PROVIDER}/{reason}", **details)
        self._peer.send(pdu.abort(pdu.SERVICE_PROVIDER, reason))
        self._peer.hang_up()

    def _end(self) -> None:
        self._state = State.ENDED
        caller, self._caller = self._caller, None
        if caller is not None:
            self._services.gate.leave(caller)
        if self._exchange is not None:
            self._exchange.discard()


def _refuse_upper_layer(request: AssociateRequest) -> Refusal | None:
    """Return the refusals of the layers below the AE title (PS3.8 section 9.3.4)."""
    if not request.version_is_ours:
        return Refusal(1, 2, 2, "Protocol version not supported")
    if request.application_context != pdu.APPLICATION_CONTEXT:
        return Refusal(1, 1, 2, "application context name not supported")
    return None
