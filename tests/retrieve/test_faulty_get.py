"""A PACS that misbehaves where it sends over the association that we have opened, by C-GET."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import evt
from pynetdicom.dsutils import encode

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import UnavailableError
from dicom_adapter.receive.spool import Spool
from dicom_adapter.rpc.client import Client
from tests.receive.conftest import log
from tests.receive.hostile import DATA, LAST, p_data, value
from tests.retrieve.conftest import Cache, Ports
from tests.retrieve.faulty import (
    CONFIG,
    REFUSED,
    SOON,
    STUDY,
    Pacs,
    answered,
    at_once,
    cache,
    calling,
    hang_up,
    idle,
    impatient,
    pacs,
    say,
    serving,
    store,
    told,
    until,
)
from tests.support import PATIENCE, settings_of

__all__ = ["at_once", "cache", "idle", "impatient", "log", "pacs"]


def uid_of(pacs: Pacs, number: int) -> str:
    """Return the UID of an instance that a PACS has."""
    return str(pacs.held[number].SOPInstanceUID)


def data_of(pacs: Pacs, number: int) -> bytes:
    """Return the data set of an instance that a PACS has."""
    content = encode(pacs.held[number], False, True)  # noqa: FBT003 - as pynetdicom has it
    assert content is not None
    return content


def whole(event: evt.Event, pacs: Pacs, number: int, **changes: Any) -> bytes:  # noqa: ANN401 - as `store` has it
    """Return a C-STORE of an instance that a PACS has."""
    return store(event, uid_of(pacs, number), data_of(pacs, number), **changes)


def once(pacs: Pacs, how: Callable[[evt.Event], None]) -> None:
    """Have a PACS misbehave in its first C-GET alone."""

    def gets(event: evt.Event) -> Iterator[Any]:
        pacs.get = None
        how(event)
        yield 0

    pacs.get = gets


def wait_for_the_end(event: evt.Event) -> None:
    """Answer nothing until the association is over."""
    until(lambda: not event.assoc.is_established)


def in_pieces(event: evt.Event, pacs: Pacs, number: int, pause: float) -> None:
    """Send an instance in four pieces, with a pause before each."""
    content = data_of(pacs, number)
    first = store(event, uid_of(pacs, number), content[:1000], is_whole=False)
    say(event, first)
    context = first[6 + 4]
    quarter = len(content) // 3
    for start in range(1000, len(content), quarter):
        time.sleep(pause)
        piece = content[start : start + quarter]
        last = LAST if start + quarter >= len(content) else 0
        say(event, p_data(value(context, DATA | last, piece)))


@pytest.mark.parametrize("how", ["hang up", "abort", "silence"])
@pytest.mark.usefixtures("impatient")
def test_what_was_whole_is_kept_where_a_data_set_breaks_off(
    cache: Cache, pacs: Pacs, how: str
) -> None:
    """And the next attempt asks for the rest alone; nothing half received stays."""

    def break_off(event: evt.Event) -> None:
        say(event, whole(event, pacs, 0))
        assert answered(event) == 0
        say(event, store(event, uid_of(pacs, 1), data_of(pacs, 1)[:9000], is_whole=False))
        until(cache.parts)
        if how == "hang up":
            hang_up(event)
        elif how == "abort":
            event.assoc.abort()
        else:
            wait_for_the_end(event)

    once(pacs, break_off)
    *_, last = cache.fetch("GET", STUDY)
    assert last.fetched == 3
    (again,) = pacs.identifiers("C-GET", "IMAGE")
    assert sorted(again.SOPInstanceUID) == sorted([uid_of(pacs, 1), uid_of(pacs, 2)])
    assert len(cache.files()) == 3


@pytest.mark.usefixtures("impatient")
def test_an_instance_may_take_its_time(cache: Cache, pacs: Pacs) -> None:
    """What counts is how long nothing comes, not how long the whole of it takes."""

    def slowly(event: evt.Event) -> None:
        in_pieces(event, pacs, 0, pause=0.3)
        assert answered(event) == 0

    once(pacs, slowly)
    *_, last = cache.fetch("GET", STUDY)
    assert last.fetched == 3
    assert len(pacs.associations) == 3


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"e1000": b"1.2.3"}, 0xA900),
        ({"e1000": None}, 0x0117),
        ({"e1000": b"no UID"}, 0x0117),
        ({"e0002": MRImageStorage.encode()}, 0x0122),
    ],
)
def test_what_is_not_what_it_is_announced_as_is_refused(
    cache: Cache, pacs: Pacs, changes: dict[str, Any], status: int
) -> None:
    """Command, data set and presentation context must agree; the rest comes all the same."""
    found = []

    def disagree(event: evt.Event) -> None:
        for _ in range(20):
            say(event, whole(event, pacs, 0, **changes))
            found.append(answered(event))
            assert len(cache.parts()) <= 1

    once(pacs, disagree)
    *_, last = cache.fetch("GET", STUDY)
    assert found == [status] * 20
    assert last.fetched == len(cache.files()) == 3


def test_what_is_never_sent_right_is_told(cache: Cache, pacs: Pacs) -> None:
    """A data set that ends too soon is refused, by number and with why."""

    def truncate(event: evt.Event) -> Iterator[Any]:
        say(event, store(event, uid_of(pacs, 0), data_of(pacs, 0)[:-100]))
        assert answered(event) == 0xC000
        yield 0

    pacs.get = truncate
    with told(UnavailableError, "3 of 3 instances did not come from GET", "data set", "(1x)"):
        cache.fetch("GET", STUDY)
    assert not cache.files()


def test_command_and_data_set_may_come_in_one_pdu(cache: Cache, pacs: Pacs) -> None:
    """`store` sends them so, and several instances at once do no harm."""

    def at_once(event: evt.Event) -> None:
        say(event, b"".join(whole(event, pacs, number) for number in range(3)))
        assert [answered(event) for _ in range(3)] == [0, 0, 0]

    once(pacs, at_once)
    *_, last = cache.fetch("GET", STUDY)
    assert last.fetched == 3
    assert len(pacs.identifiers("C-GET", "SERIES")) == 1


def test_where_no_sop_class_is_told_the_usual_ones_are_proposed(cache: Cache, pacs: Pacs) -> None:
    """Not every PACS tells it at that level."""

    def tell_none(event: evt.Event) -> Iterator[Any]:
        for code, one in pacs.well_found(event):
            if "SOPClassUID" in one:
                del one.SOPClassUID
            yield code, one

    pacs.find = tell_none
    *_, last = cache.fetch("GET", STUDY)
    assert last.fetched == 3


def test_a_pacs_that_takes_no_roles_is_told(cache: Cache, idle: Pacs) -> None:
    """It would send nothing over our association, and never say why."""
    with serving(idle, roles=False), told(REFUSED, "GET", "try retrieve: c-move"):
        cache.fetch("GET", STUDY)


@pytest.mark.usefixtures("pacs")
def test_a_disk_that_gets_full_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was whole by then stays, and nothing half done does."""
    monkeypatch.setattr(Spool, "free", lambda _: 0 if cache.files() else 2**40)
    with told(UnavailableError, "2 of 3", "GET", "storage.reserve", "(2x)"):
        cache.fetch("GET", STUDY)
    assert len(cache.files()) == 1


def test_who_cancels_in_the_middle_of_a_data_set_leaves_nothing(cache: Cache, pacs: Pacs) -> None:
    """The association ends within moments."""

    def stall(event: evt.Event) -> None:
        say(event, store(event, uid_of(pacs, 0), data_of(pacs, 0)[:9000], is_whole=False)[:-99])
        wait_for_the_end(event)

    once(pacs, stall)
    with calling(cache, "GET") as call:
        until(lambda: pacs.identifiers("C-GET", "SERIES"))
        call.cancel()
        until(pacs.is_alone, SOON)
    until(lambda: not cache.parts(), SOON)


def test_a_large_instance_needs_no_memory(pacs: Pacs, ports: Ports, tmp_path: Path) -> None:
    """300 MB go through the service, which gets larger by less than 100."""
    pacs.held = pacs.held[:1]
    head = data_of(pacs, 0)
    head = head[: head.index(b"\xe0\x7f\x10\x00")]
    megabyte = bytes(2**20)

    def large(event: evt.Event) -> None:
        start = head + b"\xe0\x7f\x10\x00OW\0\0" + (300 * 2**20).to_bytes(4, "little")
        first = store(event, uid_of(pacs, 0), start, is_whole=False)
        say(event, first)
        for number in range(300 * 16):
            last = LAST if number == 300 * 16 - 1 else 0
            say(event, p_data(value(first[10], DATA | last, megabyte[: 2**16])))
        assert answered(event) == 0

    once(pacs, large)
    settings = settings_of(tmp_path, CONFIG.format(ports))
    command = [sys.executable, "-m", "dicom_adapter", "serve", "--config", str(settings.file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline().startswith(b"ready")
            process = psutil.Process(service.pid)
            before = process.memory_info().rss
            with Client(socket_address(settings)) as client:
                *_, last = Cache(None, client).fetch("GET", STUDY)  # type: ignore[arg-type]
            assert last.fetched == 1
            peak = _peak(service.pid)
        finally:
            service.terminate()
            service.wait(PATIENCE)
    assert peak - before < 100 * 2**20


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
