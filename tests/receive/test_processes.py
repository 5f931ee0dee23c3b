"""Several receiving processes: one gate, one ledger, and what becomes of one that dies."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.receive.support import Log, Receiving, config, receiving
from tests.receive.wire import ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RQ, associate_rq, raw
from tests.support import PATIENCE, SUCCESS, association, make_instance, send

PROCESSES = "processes: 2"


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """Two processes that receive."""
    with receiving(tmp_path, config(PROCESSES)) as running:
        yield running


def children() -> list[psutil.Process]:
    """Return the receiving processes."""
    found = psutil.Process().children()
    return [child for child in found if "dicom_adapter.receive.process" in child.cmdline()]


def holder(port: int) -> psutil.Process:
    """Return the process that has accepted an association on a port."""
    for child in children():
        for connection in child.net_connections():
            if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED:
                return child
    raise AssertionError("nobody has it")


def test_they_share_the_port_the_numbers_and_the_ledger(adapter: Receiving) -> None:
    """What many send at once is stored once each, with one number for each association."""
    senders = [
        threading.Thread(target=lambda: send(adapter.port, [make_instance() for _ in range(5)]))
        for _ in range(8)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    stored = adapter.stored()
    assert len(stored) == 40
    assert len({instance.association for instance in stored}) == 8
    assert len(adapter.files()) == 40
    assert adapter.listener.associations() == 0


def test_the_limit_holds_over_all_of_them(tmp_path: Path) -> None:
    """One gate counts the associations of all processes."""
    with receiving(tmp_path, config(f"{PROCESSES}, max_associations: 3")) as adapter:
        with ExitStack() as stack:
            peers = [stack.enter_context(raw(adapter.port)) for _ in range(4)]
            answers = []
            for peer in peers:
                peer.send(associate_rq())
                answers.append(peer.read()[0])
            assert answers == [ASSOCIATE_AC] * 3 + [ASSOCIATE_RJ]
            assert adapter.listener.associations() == 3
            peers[0].send(RELEASE_RQ)
            peers[0].read()
            assert send(adapter.port, [make_instance()]) == [SUCCESS]
        assert [seen.count for seen in adapter.listener.rejections()] == [1]


def test_one_that_dies_costs_its_own_associations_only(adapter: Receiving, log: Log) -> None:
    """The others go on, another one takes its place, and its places are free again."""
    before = children()
    assert len(before) == 2
    with raw(adapter.port) as victim:
        victim.send(associate_rq())
        assert victim.read()[0] == ASSOCIATE_AC
        killed = holder(adapter.port)
        (other,) = [child for child in before if child != killed]
        # Stopped, it accepts nothing: the next association comes to the other one.
        killed.suspend()
        with association(adapter.port) as kept:
            assert kept.send_c_store(make_instance()).Status == SUCCESS
            killed.kill()
            log.wait_for("process.replaced")
            assert kept.send_c_store(make_instance()).Status == SUCCESS
            assert victim.read()[0] == 0
        assert other.is_running()
    for _ in range(4):
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
    assert len(adapter.stored()) == 6
    assert adapter.listener.associations() == 0


def test_all_of_them_dying_loses_no_connection(adapter: Receiving, log: Log) -> None:
    """The port stays open meanwhile: who comes then is served by those that follow."""
    for child in children():
        child.kill()
    assert send(adapter.port, [make_instance()]) == [SUCCESS]
    log.wait_for("process.replaced", 2)


def test_they_end_with_the_service_however_that_ends(tmp_path: Path) -> None:
    """A service that is killed leaves no process behind that holds its port."""
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(config(PROCESSES), "utf-8")
    words = [sys.executable, "-m", "dicom_adapter", "serve", "--config", str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as service:
        assert service.stdout is not None
        assert b"ready" in service.stdout.readline()
        left = psutil.Process(service.pid).children()
        os.kill(service.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(left, timeout=PATIENCE)
    assert (len(gone), alive) == (2, [])


def test_stopping_lets_an_association_end_by_itself(tmp_path: Path) -> None:
    """Within the grace a sender of any process finishes."""
    with receiving(tmp_path, config(PROCESSES)) as adapter, association(adapter.port) as opened:
        stopper = threading.Thread(target=adapter.listener.stop, args=(PATIENCE,))
        stopper.start()
        assert opened.send_c_store(make_instance()).Status == SUCCESS
        opened.release()
        stopper.join(PATIENCE)
        assert not stopper.is_alive()
        assert len(adapter.stored()) == 1
        assert children() == []
