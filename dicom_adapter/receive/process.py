"""The program of a receiving process: accepts and stores, and asks the service for the rest.

It is started by `processes` alone, with the descriptors of its three pipes. It ends when it is
ordered to, or when the service is gone.
"""

import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from dicom_adapter import logs
from dicom_adapter.clock import SystemClock
from dicom_adapter.receive import libraries
from dicom_adapter.receive.hub import RemoteGate, RemoteRecorder
from dicom_adapter.receive.intake import Intake
from dicom_adapter.receive.listener import Listener
from dicom_adapter.receive.processes import Orders
from dicom_adapter.receive.spool import Spool

# Files are the service's alone.
_UMASK = 0o077


def main(descriptors: list[int]) -> None:
    """Receive until the orders say stop, or end."""
    os.umask(_UMASK)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They come to the whole group at once; the service says when and how to end.
        signal.signal(number, signal.SIG_IGN)
    orders, gate_pipe, recorder_pipe = (Connection(descriptor) for descriptor in descriptors)
    place, now, log_settings = orders.recv()
    # At once: it is the service's time that everything goes by.
    clock = SystemClock(now)
    logs.configure(log_settings)
    libraries.prepare()
    spool = Spool(place.spool, place.flush, place.process)
    spool.open()
    gate = RemoteGate(gate_pipe)
    intake = Intake(spool, RemoteRecorder(recorder_pipe).record, clock)
    listener = Listener(gate, intake, gate.numbers(), stored=gate.stored)
    _follow(orders, listener)


def _follow(orders: Connection, listener: Listener) -> None:
    sockets: dict[int, socket.socket] = {}
    configure = listener.start
    try:
        while isinstance(order := orders.recv(), Orders):
            known = {port: sockets.pop(port) for port in order.ports if port in sockets}
            # In the order in which they are sent.
            new = {port: _receive_socket(orders) for port in order.new}
            configure(order.rules, known | new)
            for sock in sockets.values():
                sock.close()
            sockets = known | new
            if configure == listener.start:
                orders.send("accepts")
                configure = listener.reload
    except (EOFError, OSError):
        # The service is gone, and nothing can be recorded. Nothing is let end: the one that is
        # started next needs the ports, and finds in the ledger all that was acknowledged.
        os._exit(1)
    listener.stop(order.grace)


def _receive_socket(orders: Connection) -> socket.socket:
    sock = socket.socket(fileno=recv_handle(orders))
    sock.setblocking(False)  # noqa: FBT003 - its only form
    return sock


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
