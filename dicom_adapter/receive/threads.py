"""The two threads that pynetdicom runs for an association: none ends unseen, none is left behind.

One thread speaks the upper layer protocol and may hang in a read; the other one serves requests.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ

from dicom_adapter.receive.conversation import Conversation

_PROTOCOL_MACHINE, _NO_REASON = 2, 0


def watch(association: Association, conversation: Conversation, ended: Callable[[], None]) -> None:
    """Guard both threads before they start; call `ended` when the association is over."""
    _call_after(association, ended)
    _guard(association, conversation)


def _call_after(association: Association, ended: Callable[[], None]) -> None:
    run = association.run

    def run_and_tell() -> None:
        # Not pynetdicom's event for a closed connection: that comes before the last instance is
        # stored, and does not come when the protocol thread dies.
        try:
            run()
        finally:
            ended()

    association.run = run_and_tell  # type: ignore[method-assign]


def _guard(association: Association, conversation: Conversation) -> None:
    dul = association.dul
    run = dul.run

    def run_guarded() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - what a peer sends may fail anywhere in there
            # Python would print the exception, and with it what the peer sent.
            conversation.broken(error)
            pdu = A_ABORT_RQ()
            pdu.source, pdu.reason_diagnostic = _PROTOCOL_MACHINE, _NO_REASON
            if dul.socket is not None:
                dul.socket.send(pdu.encode())
            # For the other thread, should it still wait for the request.
            cast("Any", dul.to_user_queue).put(None)

    dul.run = run_guarded  # type: ignore[method-assign]


def join(associations: Iterable[Association], seconds: float) -> None:
    """Wait until the threads of these associations have ended, at most so long for all."""
    deadline = time.monotonic() + seconds
    for association in associations:
        for thread in (association, association.dul):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))


def end(conversations: Mapping[Association, Conversation], seconds: float) -> None:
    """Abort associations, and end their threads whatever these are doing."""
    for association, conversation in conversations.items():
        conversation.stopping = True
        if conversation.established:
            association.abort(block=False)
        else:
            _cut(association)
    deadline = time.monotonic() + seconds
    for conversation in conversations.values():
        conversation.disconnected.wait(max(0.0, deadline - time.monotonic()))
    # Cut before they are killed: pynetdicom then closes the socket, and a thread that still reads
    # from it would never return.
    for association in conversations:
        _cut(association)
        # In a thread of its own, since it waits without end.
        threading.Thread(target=association.kill, daemon=True).start()
    join(conversations, seconds)


def _cut(association: Association) -> None:
    wrapper = association.dul.socket
    connection = wrapper.socket if wrapper else None
    if connection is not None:
        # An error is fine: then the peer was faster.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
