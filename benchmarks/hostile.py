"""Measures what a very long instance, and peers that mean harm, cost us."""

import sys
import time
from collections.abc import Callable, Mapping
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
    """What something cost: growth of memory at its peak, in MB, and seconds; and how it ended."""

    megabytes: float
    cpu: float
    seconds: float
    outcome: str


def _long_request(port: int) -> int:
    with Connection(port) as connection:
        return _flood(connection, pack(">BxI", ASSOCIATE_RQ, _LONGEST_PDU))


def _long_data(port: int) -> int:
    with Connection(port).associate(*CONTEXTS) as connection:
        return _flood(connection, pack(">BxI", DATA, _LONGEST_PDU))


def _flood(connection: Connection, head: bytes) -> int:
    """Send a head, and then more than anybody should take; return what it is answered with."""
    connection.socket.sendall(head)
    for _ in range(256):
        connection.socket.sendall(bytes(MEGABYTE))
    return connection.receive()[0]


def _endless(port: int) -> int:
    with Connection(port).associate(*CONTEXTS) as connection:
        return _store(connection, 3 * GIGABYTE)


def _tiny_items(port: int) -> int:
    more = item(0x20, pack(">Bxxx", 7)) * (5 * 1000 * 1000 // 8)
    with Connection(port) as connection:
        connection.socket.sendall(request(*CONTEXTS, more=more))
        return connection.receive()[0]


def _bomb(port: int) -> int:
    with Connection(port).associate(*CONTEXTS) as connection:
        instance = generate_uid()
        data = series.large(instance, GIGABYTE, deflated=True)
        return connection.store(5, MULTI_FRAME, instance, data)


ATTACKS: Mapping[str, Callable[[int], int]] = {
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

    def send(port: int) -> int:
        with Connection(port).associate(*CONTEXTS) as connection:
            return _store(connection, size)

    start = receivers.adapter("process-crash")
    with receivers.running(start, folder / "long") as receiver:
        return _cost(receiver, send)


def _cost(receiver: Receiver, do: Callable[[int], int]) -> Cost:
    """Return what it costs a service that has stored something before and is well afterwards."""
    with Connection(receiver.port).associate(*CONTEXTS) as good:
        good.echo()
        _store(good, MEGABYTE)
        receiver.settle()
        receiver.forget_peak()
        memory, used, began = receiver.memory(), receiver.cpu_seconds(), time.perf_counter()
        try:
            outcome = f"answered 0x{do(receiver.port):04X}"
        except ConnectionError:
            outcome = "aborted"
        seconds = time.perf_counter() - began
        receiver.settle()
        grown = (receiver.peak_memory() - memory) / MEGABYTE
        cost = Cost(grown, receiver.cpu_seconds() - used, seconds, outcome)
        good.echo()
    return cost


def _store(connection: Connection, size: int) -> int:
    instance = generate_uid()
    return connection.store(3, MULTI_FRAME, instance, series.large(instance, size))
