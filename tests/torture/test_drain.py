"""A service that is told to end finishes what it has begun."""

import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.receive.wire import RELEASE_RQ, raw
from tests.support import PATIENCE, SUCCESS
from tests.torture import check
from tests.torture.adapter import Adapter, started, wait_until
from tests.torture.oracle import Oracle, associate, begin
from tests.torture.tally import Tally

TRANSFERS = 5
GRACE_SECONDS = 10


@pytest.mark.parametrize("processes", [1, 2])
def test_an_end_in_the_midst_of_transfers(tmp_path: Path, tally: Tally, processes: int) -> None:
    """D9: told to end, it accepts nobody any more, answers what is under way, and ends with 0."""
    adapter, oracle = Adapter(tmp_path / "adapter", processes=processes), Oracle()
    with started(adapter):
        assert adapter.process is not None
        with ExitStack() as stack:
            peers = [stack.enter_context(raw(adapter.port)) for _ in range(TRANSFERS)]
            for peer in peers:
                associate(peer)
            sent = [oracle.next() for _ in peers]
            rests = [begin(peer, oracle, each) for peer, each in zip(peers, sent, strict=True)]
            adapter.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _is_listening(adapter.port))
            for peer, each, rest in zip(peers, sent, rests, strict=True):
                peer.send(rest)
                status = peer.status()
                oracle.answered(each, status)
                assert status == SUCCESS
            before = time.monotonic()
            for peer in peers:
                peer.send(RELEASE_RQ)
                peer.read()
        assert adapter.process.wait(PATIENCE) == 0
        assert time.monotonic() - before < GRACE_SECONDS
        adapter.gone([])
        adapter.start()
        check.settle(adapter)
        found = check.all_of(adapter, oracle)
    tally.add(found, oracle)
    assert found.wrong == []


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True
