"""What a peer may say, and for how long it may say nothing, in an association that we have opened.

pynetdicom trusts it: its thread dies of a message that is none, or reads for ever where a PDU stops
in the middle, and whoever waits for an answer is told neither; and what a peer says it keeps, as
long as that may be. This is the one place that knows of it.
"""

import queue
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_adapter.promptness import acknowledge_at_once, send_at_once

# What is no data set to be stored is short; these many bytes no honest peer needs.
_LONGEST_MESSAGE = 16 * 1024 * 1024
_LONGEST_PDU = 1024 * 1024
_LOOK_SECONDS = 0.5
# Of pynetdicom's state machine (PS3.8 section 9.2): no connection; it is to be closed.
_OVER = frozenset({"Sta1", "Sta13"})
_INVALID_PDU = "Evt19"


def listen_well(association: Association, patience: float, pdu_patience: float) -> None:
    """Have an association whose connection was just opened end where its peer makes no sense.

    Args:
        association: Whose messages are looked at.
        patience: The wait for the next piece of a message, in seconds.
        pdu_patience: The wait for the next byte in the middle of a PDU, in seconds.
    """
    wrapper = association.dul.socket
    connection = wrapper.socket if wrapper else None
    if wrapper is None or connection is None:
        return
    with suppress(OSError):
        # A message is several small writes.
        send_at_once(connection)
        connection.settimeout(pdu_patience)
    read = wrapper.recv

    def recv(count: int) -> bytearray:
        if count > _LONGEST_PDU:
            raise OSError("the peer announces a PDU that is longer than any")
        # Before what is read: its peer may hold back the rest of it until then.
        acknowledge_at_once(connection)
        return read(count)

    # By name, here and below: they are methods, and nothing else offers this.
    vars(wrapper).update(recv=recv)
    ear = _Ear(association, patience)
    vars(association.dimse).update(receive_primitive=ear.receive, get_msg=ear.wait)


class ClosingAE(AE):
    """An AE whose sockets are closed in any case, and that says why there is no connection.

    pynetdicom leaves one open to which nobody answered, or that the peer has closed first.
    """

    _opened: "_ClosedSocket | None" = None

    @property
    def tls_problem(self) -> ssl.SSLError | None:
        """What TLS had against the connection that was opened last, if anything."""
        return self._opened.tls_problem if self._opened else None

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        self._opened = _ClosedSocket(assoc, address=address)
        self._opened.tls_args = tls_args
        return self._opened


class _ClosedSocket(AssociationSocket):
    tls_problem: ssl.SSLError | None = None

    def recv(self, nr_bytes: int) -> bytearray:
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            # By TLS 1.3 a peer says only here that it does not want our certificate.
            self.tls_problem = error
            raise

    def _shutdown_socket(self) -> None:
        # pynetdicom keeps to itself why nothing was opened; it calls this while it handles that.
        error = sys.exception()
        if isinstance(error, ssl.SSLError):
            self.tls_problem = error
        connection = self.socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def cut(association: Association) -> None:
    """Have the connection end under whoever reads from it or waits for it; from any thread."""
    wrapper = association.dul.socket
    connection = wrapper.socket if wrapper else None
    if connection is not None:
        with suppress(OSError):
            # Not TLS's own, which would take it away under whoever reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Ear:
    """Stands in for what pynetdicom takes messages in by, and waits for them by."""

    def __init__(self, association: Association, patience: float) -> None:
        self._dimse = association.dimse
        self._dul = association.dul
        self._collect = association.dimse.receive_primitive
        self._patience = patience
        self._heard = 0.0

    def receive(self, primitive: P_DATA) -> None:
        """Take in what is heard."""
        self._heard = time.monotonic()
        try:
            self._collect(primitive)
            is_legal = not self._is_too_long()
        except Exception:  # noqa: BLE001 - pynetdicom meets what is no message with errors of many kinds
            is_legal = False
        if not is_legal:
            self._dimse.message = None
            self._dul.event_queue.put(_INVALID_PDU)

    def _is_too_long(self) -> bool:
        message = self._dimse.message
        if message is None:
            return False
        # What is to be stored has a limit of its own.
        size = message.encoded_command_set.tell()
        if message.data_set is not None and not isinstance(message, C_STORE_RQ):
            size += message.data_set.tell()
        return size > _LONGEST_MESSAGE

    def wait(self, block: bool = False) -> tuple[Any, Any]:  # noqa: FBT001, FBT002 - as pynetdicom has it
        """Return the next message; nothing where none comes any more."""
        began = time.monotonic()
        while True:
            try:
                if not block:
                    return self._dimse.msg_queue.get_nowait()
                left = max(self._heard, began) + self._patience - time.monotonic()
                return self._dimse.msg_queue.get(timeout=max(min(left, _LOOK_SECONDS), 0))
            except queue.Empty:
                if not block or left <= 0 or self._is_over():
                    return None, None

    def _is_over(self) -> bool:
        return not self._dul.is_alive() or self._dul.state_machine.current_state in _OVER
