"""Answers an A-ASSOCIATE-RQ that is let in: which presentation contexts are taken, and how.

pynetdicom negotiates (PS3.7 annex D.3, PS3.8 section 7.1.1); what it is given and what follows from
its answer is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicom_adapter.receive.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Header,
    Origin,
)
from dicom_adapter.receive.pdu import APPLICATION_CONTEXT, AssociateRequest
from dicom_adapter.receive.policy import Caller, Policy, Title, choose_transfer_syntax

_ACCEPTED = 0


class Context:
    """An accepted presentation context, and what all instances that come over it share."""

    def __init__(self, number: int, sop_class_uid: str, syntax_uid: str, origin: Origin) -> None:
        self.number = number
        self.sop_class_uid = sop_class_uid
        self.transfer_syntax_uid = syntax_uid
        self._origin = origin

    @cached_property
    def header(self) -> Header:
        """What begins each file; made when it is needed, for most contexts are never used."""
        return Header(self.sop_class_uid, self.transfer_syntax_uid, self._origin)


@dataclass(frozen=True)
class Acceptance:
    """What the peer is answered, and what it may send."""

    contexts: tuple[Context, ...]
    #: The SOP classes of the contexts that are refused.
    refused: tuple[str, ...]
    #: Why nothing can be stored, though it was proposed; else empty.
    shut_out: str
    #: The A-ASSOCIATE-AC.
    answer: bytes


def accept(
    request: AssociateRequest,
    title: Title,
    caller: Caller,
    policy: Policy,
    max_pdu: int,
    *,
    answers_user: bool,
) -> Acceptance:
    """Return the answer to a peer that is let in to an AE title.

    Args:
        request: What it asks for.
        title: The AE title that it reaches.
        caller: Who it is.
        policy: What may be sent.
        max_pdu: The longest PDU that is taken, in bytes.
        answers_user: Whether it is told that its user identity is right (PS3.7 annex D.3.3.7.2).
    """
    answered, roles = _negotiate(request, title, policy)
    taken = [context for context in answered if context.result == _ACCEPTED]
    refused = [str(c.abstract_syntax) for c in answered if c.result != _ACCEPTED]
    origin = Origin(caller.calling_ae_title, title.title)
    contexts = tuple(
        Context(c.context_id or 0, str(c.abstract_syntax), str(c.transfer_syntax[0]), origin)
        for c in taken
    )
    return Acceptance(
        contexts=contexts,
        refused=tuple(refused),
        shut_out=policy.shut_out(title, [c.sop_class_uid for c in contexts], refused),
        answer=_associate_ac(
            request, answered, [*roles, *([_user_answer()] if answers_user else [])], max_pdu
        ),
    )


def _negotiate(
    request: AssociateRequest, title: Title, policy: Policy
) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    supported: dict[str, set[str]] = {}
    for context in request.contexts:
        sop_class = str(context.abstract_syntax)
        if not policy.accepts(title, sop_class):
            continue
        chosen = choose_transfer_syntax(map(str, context.transfer_syntax))
        syntaxes = supported.setdefault(sop_class, set())
        if chosen is not None:
            syntaxes.add(chosen)
            # Narrowed to the one we take: pynetdicom knows one order for all contexts of a
            # SOP class, and it is ours, not the proposer's.
            context.transfer_syntax = [chosen]
    # Without any, build_context takes pynetdicom's default ones; none of them is proposed.
    ours = [build_context(uid, sorted(syntaxes) or None) for uid, syntaxes in supported.items()]
    proposed_roles = {
        UID(item.sop_class_uid or ""): (item.scu_role, item.scp_role)
        for item in request.primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    contexts, roles = negotiate_as_acceptor(list(request.contexts), ours, proposed_roles)
    return list(contexts), list(roles)


def _user_answer() -> UserIdentityNegotiation:
    answer = UserIdentityNegotiation()
    # Of a name and a passcode there is nothing to return.
    answer.server_response = b""
    return answer


def _associate_ac(
    request: AssociateRequest,
    contexts: list[PresentationContext],
    more: Sequence[SCP_SCU_RoleSelectionNegotiation | UserIdentityNegotiation],
    max_pdu: int,
) -> bytes:
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(APPLICATION_CONTEXT)
    answer.calling_ae_title = request.primitive.calling_ae_title
    answer.called_ae_title = request.primitive.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    # No asynchronous operations window: one message at a time (PS3.7 annex D.3.3.3).
    answer.user_information = [length, implementation, version, *more]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return bytes(pdu.encode())
