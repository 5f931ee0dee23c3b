"""How associations are numbered, limited and ended."""

import socket
import threading
from pathlib import Path
from time import monotonic, sleep

import pytest

from dicom_adapter import service
from dicom_adapter.errors import StartError
from dicom_adapter.model import StoredInstance
from tests.receive.hostile import unmoved
from tests.receive.support import CT, Log, config, free_port, receiving
from tests.receive.wire import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, associate_rq, raw, store_rq
from tests.support import PATIENCE, SUCCESS, association, make_instance, running, send


def test_numbers_rise_and_are_never_given_twice(tmp_path: Path, log: Log) -> None:
    """Each association has a number of its own, a restarted service goes on from the highest."""
    for _ in range(2):
        with receiving(tmp_path) as adapter:
            for _ in range(3):
                assert send(adapter.port, [make_instance()]) == [SUCCESS]
    numbers = [instance.association for instance in adapter_stored(tmp_path)]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert [line["association"] for line in log.of("association.accepted")] == numbers


def adapter_stored(folder: Path) -> list[StoredInstance]:
    """Return what the ledger in a folder knows."""
    with receiving(folder) as adapter:
        return list(adapter.stored())


def test_numbers_are_unique_among_simultaneous_associations(tmp_path: Path, log: Log) -> None:
    """Eight peers at the same moment get eight numbers."""
    with receiving(tmp_path) as adapter:
        together = threading.Barrier(8)

        def talk() -> None:
            together.wait()
            send(adapter.port, [make_instance()])

        peers = [threading.Thread(target=talk) for _ in range(8)]
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
        assert len({instance.association for instance in adapter.stored()}) == 8
    assert len({line["association"] for line in log.of("association.accepted")}) == 8


def test_one_more_than_the_limit_is_rejected_2_3_2(tmp_path: Path, log: Log) -> None:
    """The rejection is temporary, logged, and remembered for those who ask."""
    with (
        receiving(tmp_path, config("max_associations: 2")) as adapter,
        association(adapter.port),
        association(adapter.port),
        raw(adapter.port) as peer,
    ):
        assert adapter.listener.associations() == 2
        peer.send(associate_rq(calling=b"THIRD"))
        assert peer.read() == (ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
        (line,) = log.wait_for("association.rejected")
        (seen,) = adapter.listener.rejections()
    assert (line["rejection"], line["calling"]) == ("2/3/2", "THIRD")
    assert line["why"] == seen.why == "more than dicom.max_associations=2 at once"
    assert (seen.calling_ae_title, seen.count) == ("THIRD", 1)


def test_a_place_is_free_as_soon_as_its_peer_has_gone(tmp_path: Path) -> None:
    """With a limit of one, a peer that comes again at once is never rejected."""
    with receiving(tmp_path, config("max_associations: 1")) as adapter:
        for _ in range(10):
            with association(adapter.port) as opened:
                assert opened.is_established
            with raw(adapter.port) as peer:
                peer.send(associate_rq())
                assert peer.read()[0] == ASSOCIATE_AC
                peer.send(b"\x05\0\0\0\0\x04\0\0\0\0")
                peer.read()


@pytest.mark.parametrize("last", [b"", b"\x07\0\0\0\0\x04\0\0\0\0", b"\x0f\0\0\0\0\0", b"\x04\0"])
def test_a_place_is_free_however_its_peer_goes(tmp_path: Path, log: Log, last: bytes) -> None:
    """Abort, nonsense, half a PDU, or just gone: nothing holds the place for ever."""
    told = "association.ended" if last[:1] in {b"\x07", b"\x0f"} else "association.lost"
    with receiving(tmp_path, config("max_associations: 1")) as adapter, unmoved(adapter):
        before = len(log.of(told))
        with raw(adapter.port) as peer:
            peer.send(associate_rq())
            peer.read()
            peer.send(last)
        log.wait_for(told, before + 1)
        assert adapter.listener.associations() == 0
        assert send(adapter.port, [make_instance()]) == [SUCCESS]


def test_connections_that_ask_for_nothing_take_no_place(tmp_path: Path) -> None:
    """Silent connections do not keep senders out."""
    with receiving(tmp_path, config("max_associations: 1")) as adapter:
        silent = [socket.create_connection(("127.0.0.1", adapter.port)) for _ in range(5)]
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
        for connection in silent:
            connection.close()


def test_stopping_lets_an_association_end_by_itself(tmp_path: Path, log: Log) -> None:
    """Within the grace a sender finishes; meanwhile nobody new gets in."""
    with receiving(tmp_path) as adapter:
        with association(adapter.port) as opened:
            stopper = threading.Thread(target=adapter.listener.stop, args=(PATIENCE,))
            stopper.start()
            log.wait_for("listener.closed")
            with socket.socket() as late:
                assert late.connect_ex(("127.0.0.1", adapter.port)) != 0
            assert opened.send_c_store(make_instance()).Status == SUCCESS
        stopper.join()
        assert len(adapter.stored()) == 1
    assert log.of("association.aborted") == []


def test_stopping_aborts_what_does_not_end(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace: A-ABORT to a silent peer, to one in the middle of a PDU, to none at all."""
    monkeypatch.setattr(service, "ASSOCIATIONS_GRACE", 0.2)
    before = {thread.ident for thread in threading.enumerate()}
    with running(tmp_path) as adapter, raw(adapter.port) as idle, raw(adapter.port) as half:
        silent = socket.create_connection(("127.0.0.1", adapter.port))
        for peer in (idle, half):
            peer.send(associate_rq())
            assert peer.read()[0] == ASSOCIATE_AC
        half.send(store_rq(CT.encode(), b"1.2.3", bytes(1000))[:-100])
        began = monotonic()
        adapter.service.stop()
        assert monotonic() - began < 10
        assert idle.read()[0] == ABORT
        assert half.read()[0] in {ABORT, 0}
        silent.close()
    ends = log.of("association.aborted") + log.of("association.lost")
    assert [line["why"] for line in ends] == ["the service stops"] * 2

    def left() -> list[str]:
        return [t.name for t in threading.enumerate() if t.ident not in before and not t.daemon]

    # The last ones are just ending.
    deadline = monotonic() + PATIENCE
    while left() and monotonic() < deadline:
        sleep(0.01)
    assert left() == []


def test_a_port_in_use_is_told_with_its_cure(tmp_path: Path) -> None:
    """A taken port stops the start, by name, and the ports opened before are closed again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, first = taken.getsockname()[1], free_port()
        text = config("", f"A: port: {first}", f"B: port: {port}")
        with (
            pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*choose"),
            receiving(tmp_path, text),
        ):
            pass
    with socket.socket() as again:
        again.bind(("127.0.0.1", first))
