"""Measures what a very long instance, and peers that mean harm, cost us."""

import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import pack

from pydicom.uid import generate_uid

from benchmarks import receivers, series
from benchmarks.receivers import Receiver
from benchmarks.series import GIGABYTE, MULTI_FRAME
from benchmarks.wire import (
    ASSOCIATE_RQ,
    DATA,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Connection,
    item,
    request,
)

CONTEXTS = ((VERIFICATION, IMPLICIT), (MULTI_FRAME, EXPLICIT), (MULTI_FRAME, DEFLATED))
MEGABYTE = 1024 * 1024
LIMITS = "max_instance: 64MiB"
_LONGEST_PDU = 0xFFFFFFFF


@dataclass(frozen=True)
class Cost:
    """What something cost: how much memory grew at most, in MB, and seconds of CPU."""

    megabytes: float
    cpu: float
    seconds: float


def _long_request(port: int) -> None:
    with Connection(port) as connection:
        _flood(connection, pack(">BxI", ASSOCIATE_RQ, _LONGEST_PDU))


def _long_data(port: int) -> None:
    with Connection(port).associate(*CONTEXTS) as connection:
        _flood(connection, pack(">BxI", DATA, _LONGEST_PDU))


def _flood(connection: Connection, head: bytes) -> None:
    """Send a head, and then more than anybody should take."""
    connection.socket.sendall(head)
    for _ in range(256):
        connection.socket.sendall(bytes(MEGABYTE))


def _endless(port: int) -> None:
    with Connection(port).associate(*CONTEXTS) as connection:
        instance = generate_uid()
        connection.store(3, MULTI_FRAME, instance, series.large(instance, 3 * GIGABYTE))


def _tiny_items(port: int) -> None:
    more = item(0x20, pack(">Bxxx", 7)) * (5 * 1000 * 1000 // 8)
    with Connection(port) as connection:
        connection.socket.sendall(request(*CONTEXTS, more=more))
        connection.receive()


def _bomb(port: int) -> None:
    with Connection(port).associate(*CONTEXTS) as connection:
        instance = generate_uid()
        data = series.large(instance, GIGABYTE, deflated=True)
        connection.store(5, MULTI_FRAME, instance, data)


ATTACKS: Mapping[str, Callable[[int], None]] = {
    "A-ASSOCIATE-RQ of length 0xFFFFFFFF": _long_request,
    "P-DATA of length 0xFFFFFFFF": _long_data,
    "data set without an end (max_instance: 64MiB)": _endless,
    "A-ASSOCIATE-RQ of 5 MB of tiny items": _tiny_items,
    "deflated data set, 1 MB that inflates to 1 GB": _bomb,
}


def run(folder: Path) -> dict[str, Cost]:
    """Measure every attack, each on a service of its own."""
    found = {}
    for name, attack in ATTACKS.items():
        with receivers.running(
            receivers.adapter("process-crash", LIMITS), folder / "hostile"
        ) as receiver:
            found[name] = _cost(receiver, attack)
        print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def long_instance(folder: Path, size: int) -> Cost:
    """Measure one instance of so many bytes."""

    def send(port: int) -> None:
        with Connection(port).associate(*CONTEXTS) as connection:
            _store(connection, size)

    start = receivers.adapter("process-crash")
    with receivers.running(start, folder / "long") as receiver:
        return _cost(receiver, send)


def _cost(receiver: Receiver, do: Callable[[int], None]) -> Cost:
    """Return what it costs a service that has stored something before and is well afterwards."""
    with Connection(receiver.port).associate(*CONTEXTS) as good:
        good.echo()
        _store(good, MEGABYTE)
        receiver.settle()
        receiver.forget_peak()
        memory, used, began = receiver.memory(), receiver.cpu_seconds(), time.perf_counter()
        # Whom it hangs up on has got what it deserves.
        with suppress(ConnectionError, socket.timeout):
            do(receiver.port)
        seconds = time.perf_counter() - began
        receiver.settle()
        cost = Cost(
            (receiver.peak_memory() - memory) / MEGABYTE, receiver.cpu_seconds() - used, seconds
        )
        good.echo()
    return cost


def _store(connection: Connection, size: int) -> None:
    instance = generate_uid()
    status = connection.store(3, MULTI_FRAME, instance, series.large(instance, size))
    if status:
        raise RuntimeError(f"{size} bytes were answered 0x{status:04X}")
