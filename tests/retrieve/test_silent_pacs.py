"""A PACS that goes away, talks rubbish or falls silent, and who waits for it."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pynetdicom import evt

from dicom_adapter.errors import UnavailableError
from dicom_adapter.retrieve import fetching
from tests.receive.conftest import log
from tests.receive.hostile import COMMAND, DATA, LAST, command, p_data, value
from tests.receive.wire import pdu
from tests.retrieve.conftest import Cache, Ports, Runs
from tests.retrieve.faulty import (
    CONFIG,
    SOON,
    STUDY,
    Pacs,
    answer,
    at_once,
    cache,
    calling,
    connection,
    hang_up,
    idle,
    impatient,
    is_silent,
    pacs,
    say,
    told,
    until,
)

__all__ = ["at_once", "cache", "idle", "impatient", "log", "pacs"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*for VR"),
    pytest.mark.filterwarnings("ignore:Unknown encoding"),
]


@pytest.mark.parametrize("how", ["abort", "hang up"])
def test_a_question_in_which_it_goes_away_is_told(cache: Cache, pacs: Pacs, how: str) -> None:
    """At once, and not as an empty answer."""

    def break_off(event: evt.Event) -> Iterator[Any]:
        yield 0xFF00, answer(event.identifier, pacs.held[0])
        event.assoc.abort() if how == "abort" else hang_up(event)

    pacs.find = break_off
    began = time.monotonic()
    with told(UnavailableError, "MOVE", "broke off"):
        cache.find("MOVE", PatientID="1")
    assert time.monotonic() - began < SOON


@pytest.mark.usefixtures("impatient")
def test_silence_is_told(cache: Cache, pacs: Pacs) -> None:
    """And the association is over: nobody waits for what may still come."""
    pacs.find = is_silent
    with told(UnavailableError, "MOVE", "did not answer for 0.5 s"):
        cache.find("MOVE", PatientID="1")
    until(pacs.is_alone, SOON)


NO_COMMAND = p_data(
    value(1, COMMAND | LAST, command({0x0002: b"1.2", 0x0100: 0x7777, 0x0800: 0x0101}))
)
HALF_A_PDU = p_data(value(1, COMMAND, bytes(1000)))[:-500]


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(NO_COMMAND, id="no command"),
        pytest.param(p_data(value(1, COMMAND | LAST, b"\xff" * 99)), id="no command set"),
        pytest.param(
            p_data(value(99, COMMAND | LAST, command({0x0100: 1, 0x0800: 0x0101}))), id="no context"
        ),
        pytest.param(pdu(0x04, struct.pack(">LB", 1, 1)), id="empty value"),
        pytest.param(pdu(0x0F, b"\0\0"), id="no PDU type"),
        pytest.param(struct.pack(">BxL", 4, 0xFFFF_FFFF), id="4 GB"),
        pytest.param(pdu(0x02, bytes(80)), id="accepted again"),
    ],
)
def test_rubbish_is_told_at_once(cache: Cache, pacs: Pacs, rubbish: bytes) -> None:
    """What is no DIMSE message ends the association, and nobody waits for more."""

    def say_it(event: evt.Event) -> Iterator[Any]:
        say(event, rubbish)
        yield from is_silent(event)

    pacs.find = say_it
    began = time.monotonic()
    with told(UnavailableError, "MOVE", "broke off"):
        cache.find("MOVE", PatientID="1")
    assert time.monotonic() - began < SOON
    until(pacs.is_alone, SOON)


def test_a_message_without_end_is_broken_off(cache: Cache, pacs: Pacs) -> None:
    """An answer to a question is short: one that never ends must not fill the memory."""
    piece = p_data(*(value(1, DATA, bytes(16_000)) for _ in range(8)))
    sent = 0

    def endless(event: evt.Event) -> Iterator[Any]:
        nonlocal sent
        say(event, p_data(value(1, COMMAND | LAST, command({0x0100: 0x8020, 0x0800: 1}))))
        try:
            while sent < 500_000_000:
                connection(event).sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        yield from is_silent(event)

    pacs.find = endless
    with told(UnavailableError, "MOVE", "broke off"):
        cache.find("MOVE", PatientID="1")
    until(pacs.is_alone, SOON)
    assert sent < 100_000_000


def _mid_pdu(event: evt.Event) -> Iterator[Any]:
    say(event, HALF_A_PDU)
    yield from is_silent(event)


def _quiet(pacs: Pacs, where: str) -> None:
    """Have a PACS fall silent."""
    if where == "C-FIND":
        pacs.find = is_silent
    elif where == "C-MOVE":
        pacs.move = is_silent
    else:
        pacs.find = _mid_pdu


PLACES = ["C-FIND", "C-MOVE", "PDU"]


@pytest.mark.usefixtures("impatient")
def test_silence_in_the_middle_of_a_pdu_is_told(cache: Cache, pacs: Pacs) -> None:
    """Whoever reads the rest of it does not wait for ever."""
    pacs.find = _mid_pdu
    with told(UnavailableError, "MOVE", "did not answer"):
        cache.find("MOVE", PatientID="1")
    until(pacs.is_alone, SOON)


@pytest.mark.parametrize("where", PLACES)
def test_who_cancels_has_theis_silent_association_end(cache: Cache, pacs: Pacs, where: str) -> None:
    """Within moments, and the place is another's."""
    _quiet(pacs, where)
    with ExitStack() as calls:
        made = [calls.enter_context(calling(cache, "MOVE")) for _ in range(fetching.MOST_AT_A_TIME)]
        until(lambda: len(pacs.asked) >= len(made) and len(pacs.associations) == len(made))
        with told(UnavailableError, "too many"):
            cache.fetch("MOVE", STUDY)
        for call in made:
            call.cancel()
        until(pacs.is_alone, SOON)
    pacs.find = pacs.move = None
    until(lambda: _fetched(cache) == 3, SOON)


def _fetched(cache: Cache) -> int:
    try:
        *_, last = cache.fetch("MOVE", STUDY)
    except UnavailableError:
        return -1
    return last.fetched


@pytest.mark.parametrize("where", PLACES)
def test_the_service_stops_while_it_waits_for_ais_silent_pacs(
    cache_at: Runs, ports: Ports, pacs: Pacs, where: str
) -> None:
    """Nobody waits for it."""
    _quiet(pacs, where)
    with ExitStack() as open_:
        with cache_at(CONFIG.format(ports)) as cache:
            open_.enter_context(calling(cache, "MOVE"))
            service = "C-MOVE" if where == "C-MOVE" else "C-FIND"
            until(lambda: [True for name, _ in pacs.asked if name == service])
            began = time.monotonic()
        assert time.monotonic() - began < SOON
        until(pacs.is_alone, SOON)


def test_the_service_stops_while_it_waits_for_an_association(cache_at: Runs, ports: Ports) -> None:
    """Also whoever accepts a connection alone is not waited for."""
    with ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", ports.dicom)))
        with cache_at(CONFIG.format(ports)) as cache:
            open_.enter_context(calling(cache, "MOVE"))
            accepted = open_.enter_context(listener.accept()[0])
            assert accepted.recv(1)
            began = time.monotonic()
        assert time.monotonic() - began < SOON
        accepted.settimeout(SOON)
        while accepted.recv(4096):
            pass
