"""Peers that are silent, slow or many: each has its time, and none takes another's."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.receive.hostile import (
    COMMAND,
    CT_CONTEXT,
    DATA,
    LAST,
    aborted,
    command,
    echo,
    established,
    good_instance,
    is_closed,
    p_data,
    request,
    send_for_ever,
    serve_well,
    store,
    unmoved,
    value,
)
from tests.receive.support import Log, Receiving, config, receiving
from tests.receive.wire import ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RQ, Raw, raw
from tests.support import PATIENCE
from tests.torture.adapter import wait_until

GOOD = good_instance()
# Of Linux; the socket module does not name it.
TCP_REPAIR = 19
COMMANDED = p_data(value(CT_CONTEXT, COMMAND | LAST, command(GOOD.fields)))


@contextmanager
def hurried(folder: Path, **timeouts: float) -> Iterator[Receiving]:
    """Listen with short timeouts."""
    values = ", ".join(f"{name}: {seconds}" for name, seconds in timeouts.items())
    with receiving(folder, config(f"timeouts: {{{values}}}")) as adapter:
        yield adapter


@pytest.mark.parametrize("content", [b"", b"\x01", request()[:5], request()[:100]])
def test_whoever_asks_for_nothing_in_time_is_closed(
    tmp_path: Path, log: Log, content: bytes
) -> None:
    """After dicom.timeouts.association, however much of the request has come."""
    with hurried(tmp_path, association=0.3) as adapter, unmoved(adapter), raw(adapter.port) as peer:
        peer.send(content)
        assert is_closed(peer)
        (line,) = log.wait_for("association.none")
    assert line["why"] == "no association in dicom.timeouts.association=0.3 s"


@pytest.mark.parametrize(
    "content",
    [b"\x04", store(GOOD)[:5], store(GOOD)[:300], RELEASE_RQ[:7], COMMANDED, COMMANDED[:40]],
    # Not by the bytes: they have a UID in them that is another one in each process.
    ids=("a type", "a length", "a data set", "a release", "a command", "half a command"),
)
def test_whoever_stops_in_a_message_is_aborted(tmp_path: Path, log: Log, content: bytes) -> None:
    """After dicom.timeouts.progress without a byte; what had come is gone."""
    with hurried(tmp_path, progress=0.3) as adapter, unmoved(adapter):
        with established(adapter) as peer:
            peer.send(content)
            assert aborted(peer) == "2/0"
            assert is_closed(peer)
        (line,) = log.wait_for("association.aborted")
    assert line["why"] == "no byte of a message for dicom.timeouts.progress=0.3 s"


def test_whoever_trickles_is_aborted(tmp_path: Path, log: Log) -> None:
    """A byte now and then is progress, but slower than dicom.min_rate."""
    with hurried(tmp_path, progress=0.4) as adapter, unmoved(adapter):
        with established(adapter) as peer:
            peer.send(COMMANDED)
            with pytest.raises(ConnectionError):
                send_for_ever(peer, p_data(value(CT_CONTEXT, DATA, b"x")), pause=0.05)
        (line,) = log.wait_for("association.aborted")
    assert line["why"] == "a message comes slower than dicom.min_rate"


def test_whoever_does_not_read_is_closed(tmp_path: Path, log: Log) -> None:
    """A peer that takes no answers may not keep us waiting with them."""
    told = "it does not read what it is answered"
    with hurried(tmp_path, progress=0.4) as adapter, unmoved(adapter):
        # With both windows closed, TCP itself now and then takes no acknowledgement any more,
        # before there is anything that we could not send: the peer then tries again.
        while not [line for line in log.of("association.lost") if line["why"] == told]:
            with socket.socket() as connection, suppress(TimeoutError):
                # Before it connects: a window that shrinks later would stop us by itself.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(PATIENCE / 4)
                connection.connect(("127.0.0.1", adapter.port))
                peer = Raw(connection)
                peer.send(request())
                assert peer.read()[0] == ASSOCIATE_AC
                with pytest.raises(ConnectionError):
                    send_for_ever(peer, echo() * 50)
                log.wait_for("association.lost")


def test_a_clock_that_is_set_moves_no_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour forward or back in the middle of a transfer is nobody's timeout."""
    real = time.time
    with (
        hurried(tmp_path, association=5, progress=5, idle=5) as adapter,
        unmoved(adapter),
        established(adapter) as peer,
    ):
        for hours in (1, -1, 0):
            content = store(good_instance())
            peer.send(content[:300])
            monkeypatch.setattr(time, "time", lambda hours=hours: real() + hours * 3600)
            time.sleep(0.1)
            peer.send(content[300:])
            assert peer.status() == 0


@pytest.mark.parametrize("hours", [1, -1])
def test_a32_a_clock_that_is_set_keeps_every_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Who stops is aborted in time also by a clock that goes back to before it began."""
    real = time.time
    with hurried(tmp_path, progress=0.3) as adapter, unmoved(adapter), established(adapter) as peer:
        began = time.monotonic()
        peer.send(COMMANDED)
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
        assert aborted(peer) == "2/0"
        assert 0.3 <= time.monotonic() - began < 5
        monkeypatch.undo()


def test_a_thousand_silent_connections_keep_nobody_out(adapter: Receiving) -> None:
    """They cost a descriptor each, and no time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with unmoved(adapter, megabytes=32), ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", adapter.port)))
        serve_well(adapter)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_storm_of_connections_keeps_nobody_out(adapter: Receiving) -> None:
    """Hundreds that come and go: a good peer is served meanwhile, and nothing is left."""
    with unmoved(adapter), established(adapter) as peer:
        for number in range(600):
            with socket.create_connection(("127.0.0.1", adapter.port)) as storm:
                storm.sendall(request() if number % 2 else b"")
            if number % 50 == 0:
                peer.send(echo())
                assert peer.status() == 0


def test_no_descriptors_left_is_waited_for(
    adapter: Receiving, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot be accepted now is accepted when there is room, without a busy loop."""
    accept, failures = socket.socket.accept, [3]

    def refuse(sock: socket.socket) -> object:
        if failures[0]:
            failures[0] -= 1
            raise OSError(24, "Too many open files")
        return accept(sock)

    with unmoved(adapter):
        monkeypatch.setattr(socket.socket, "accept", refuse)
        serve_well(adapter)
        # Once, however often it was tried again.
        assert len(log.of("listener.full")) == 1
        monkeypatch.undo()


@pytest.mark.parametrize("limit", ["max_per_calling_ae", "max_per_address", "max_associations"])
def test_each_limit_is_kept_and_named(tmp_path: Path, log: Log, limit: str) -> None:
    """One more is rejected 2/3/2; a place is free again as soon as somebody has left."""
    with receiving(tmp_path, config(f"{limit}: 1")) as adapter, unmoved(adapter):
        with established(adapter) as first, raw(adapter.port) as second:
            second.send(request())
            kind, answer = second.read()
            assert (kind, tuple(answer[1:4])) == (ASSOCIATE_RJ, (2, 3, 2))
            first.send(RELEASE_RQ)
            first.read()
            with raw(adapter.port) as third:
                third.send(request())
                assert third.read()[0] == ASSOCIATE_AC
        (line,) = log.of("association.rejected")
    assert line["why"] == f"more than dicom.{limit}=1 at once"


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener alone."""
    with receiving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("is_within", [True, False])
def test_a27_a_peer_that_has_vanished_is_closed(
    tmp_path: Path, log: Log, *, is_within: bool
) -> None:
    """Without a FIN and without an RST, as where its cable is pulled; nothing of it stays."""
    with hurried(tmp_path, progress=0.4, idle=0.4) as adapter, unmoved(adapter):
        with established(adapter) as peer:
            if is_within:
                peer.send(COMMANDED + p_data(value(CT_CONTEXT, DATA, GOOD.data[:100])))
                # All of it has to have been acknowledged: what is, is answered by nobody else.
                wait_until(lambda: any(part.stat().st_size for part in parts(tmp_path)))
            try:
                # What is closed like that says nothing to the other side (tcp(7), TCP_REPAIR).
                peer.connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            except PermissionError:
                pytest.skip("only root may let a connection vanish (CAP_NET_ADMIN)")
            peer.connection.close()
        (line,) = log.wait_for("association.aborted")
        assert "dicom.timeouts" in str(line["why"])
    assert not parts(tmp_path)


def parts(folder: Path) -> list[Path]:
    """Return the files of what is being received."""
    return list((folder / "data" / "spool").rglob("*.part"))
