"""D28: what the service uses stays what it is, however long it receives, processes and reclaims."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.support import files_in
from tests.torture import check
from tests.torture.adapter import CONFIG, Adapter, started, wait_until
from tests.torture.check import Found
from tests.torture.oracle import Oracle, Senders
from tests.torture.tally import Tally

pytestmark = [pytest.mark.timeout(3600), pytest.mark.first]

SECONDS = int(os.environ.get("SOAK", "20"))
MIB = 1024**2
# Nothing is kept; and a group is handed over while its study still comes.
_CONFIG = CONFIG.replace(
    "{{max_jobs: 2}}", "{{max_jobs: 2, keep: {{inputs: 0s, outputs: 0s, logs: 0s}}}}"
).replace("{timeout},", "{timeout}, max_wait: {timeout},")
_PAUSE_SECONDS = 0.02
# A job has a thread, and a few files; so has a receiver, whichever of them this moment works.
_SLACK = 4


class Use(NamedTuple):
    """What the service uses at a moment."""

    memory: int
    descriptors: int
    threads: int


def _use(service: psutil.Process) -> Use:
    with service.oneshot():
        return Use(service.memory_info().rss, service.num_fds(), service.num_threads())


def _median(samples: Sequence[Use]) -> Use:
    return Use(*(int(statistics.median(column)) for column in zip(*samples, strict=True)))


def test_memory_descriptors_and_threads_stay_flat(tmp_path: Path, tally: Tally) -> None:
    """The record of the past grows with the past; memory, descriptors and threads do not."""
    oracle = Oracle()
    with started(Adapter(tmp_path / "adapter", retain="0s", config=_CONFIG)) as adapter:
        service, samples = adapter.all_of_it()[0], []
        with Senders(oracle, adapter.port, pause=_PAUSE_SECONDS):
            # Then every part has worked for once.
            wait_until(lambda: _reclaimed(adapter))
            for _ in range(SECONDS):
                time.sleep(1)
                samples.append(_use(service))
        check.settle(adapter)
        wait_until(lambda: not _left(adapter))
        assert not files_in(adapter.storage / "spool")
        lost = oracle.told().keys() - _reclaimed(adapter)
    tally.add(Found(lost=sorted(lost)), oracle)
    assert not lost
    assert not oracle.refused
    # The first quarter is for warming up.
    quarter = len(samples) // 4
    early, late = _median(samples[quarter : 2 * quarter]), _median(samples[-quarter:])
    assert late.memory <= early.memory * 1.1 + 8 * MIB, (early, late)
    assert late.descriptors <= early.descriptors + _SLACK, (early, late)
    assert late.threads <= early.threads + _SLACK, (early, late)


def _reclaimed(adapter: Adapter) -> set[str]:
    """Return what was delivered and removed, by SOP Instance UID."""
    with check.reading(adapter.ledger) as tx:
        rows = tx.execute("select sop_instance_uid from instances where state = 'reclaimed'")
        return {uid for (uid,) in rows}


def _left(adapter: Adapter) -> int:
    """Return how many instances are still to be removed."""
    with check.reading(adapter.ledger) as tx:
        query = "select count(*) from instances where state != 'reclaimed'"
        return int(tx.execute(query).fetchone()[0])
