"""An adapter before a platform of its own process, with bad luck in everything between them."""

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Self

import grpc

from dicom_adapter.rpc.client import Client
from tests.receive.support import free_port
from tests.support import files_in, let_in
from tests.torture import check
from tests.torture.adapter import Adapter, wait_until
from tests.torture.check import Found
from tests.torture.oracle import Oracle, Senders
from tests.torture.proxy import Proxy, Trap, Way

PIPELINES = ("copy", "other")
_STORAGE = """
log: {{level: warning}}
storage: {{path: {storage}, durability: {durability}, reserve: 0, watermark: 100%, retain: 1d}}
ledger: {{url: "sqlite:///{ledger}"}}
"""
PLATFORM = """
grpc: {{listen: "127.0.0.1:PORT"}}
platform: {{max_jobs: 2}}
pipelines:
  copy: {{command: ["true"], resources: {{memory: 1MiB}}}}
  other: {{command: ["true"], resources: {{memory: 1MiB}}}}
"""
ADAPTER = """
dicom: {{host: 127.0.0.1, port: {port}, processes: {processes}}}
grpc: {{listen: null}}
platform: {{address: "127.0.0.1:PORT", token: "TOKEN"}}
ae_titles:
  TEST: {{settings: {{timeout: 5, late: separate, pipeline-copy: copy, pipeline-other: other}}}}
"""
# How often an instance came to each pipeline, by a submission that made a job that ended well.
_WORKED_ON = """
select si.instance_id, s.pipeline, count(*) from submission_instances si
join submissions s on s.id = si.submission_id
join far.jobs j on j.request_id = s.id and j.id = s.job_id and j.pipeline = s.pipeline
join far.job_items i on i.job_id = j.id
join far.job_files f on f.item_id = i.id and f.instance_id = si.instance_id
where s.state = 'accepted' and j.state = 'finished'
group by si.instance_id, s.pipeline
"""
# Senders that leave some of the machine to the others, and time for groups to be handed over.
_SENDERS = 2
_PAUSE_SECONDS = 0.1
_GROUP_SECONDS = 0.7
CALL_SECONDS = 1.0


class Pair:
    """An adapter and its platform, either of which may die, and the network between them."""

    def __init__(self, folder: Path, pixels: int = 0, deadline: float = CALL_SECONDS) -> None:
        """Write their configurations.

        Args:
            folder: Where everything is.
            pixels: Bytes of pixels of each instance.
            deadline: Seconds after which the adapter gives a call up.
        """
        port = free_port()
        self.oracle = Oracle(pixels)
        self.proxy = Proxy(free_port(), port)
        far = (PLATFORM + _STORAGE).replace("PORT", str(port))
        self.platform = Adapter(folder / "platform", config=far)
        token = folder / "token"
        let_in(self.platform.ledger, token)
        near = (ADAPTER + _STORAGE).replace("PORT", str(self.proxy.port))
        near = near.replace("TOKEN", str(token))
        hasty = ("tests.torture.altered", f"hasty {deadline:g}")
        self.adapter = Adapter(folder / "adapter", config=near, program=hasty)

    def __enter__(self) -> Self:
        self.proxy.up()
        try:
            # Together: neither needs the other for that.
            with ThreadPoolExecutor(2) as starters:
                list(starters.map(Adapter.start, (self.platform, self.adapter)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.adapter, self.platform):
            if one.process is not None:
                one.kill()
        self.proxy.down()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Send, and have groups handed over, until the block ends."""
        ending = threading.Event()
        handing = threading.Thread(target=self._hand_over, args=(ending,))
        with Senders(self.oracle, self.adapter.port, _SENDERS, _PAUSE_SECONDS):
            handing.start()
            try:
                yield
            finally:
                ending.set()
                handing.join()

    def _hand_over(self, ending: threading.Event) -> None:
        while not ending.wait(_GROUP_SECONDS):
            # The adapter may be dead, or be killed this moment. What is open is handed over as it
            # is: with senders that never pause, there may never be a moment without one to come.
            with suppress(grpc.RpcError, sqlite3.Error), Client(self.adapter.socket) as client:
                check.complete(self.adapter, client)

    def hand_over(self) -> bool:
        """Have every open group handed over once every instance has come to one; else False."""
        with Client(self.adapter.socket) as client:
            return check.completed(self.adapter, client)

    @contextmanager
    def committed(self) -> Iterator[Trap]:
        """Hold the connection when the platform has committed a job, and nobody was told."""
        # One connection for all looks: to make one takes longer than what is looked at.
        with closing(sqlite3.connect(self.platform.ledger, check_same_thread=False)) as tx:

            def jobs() -> int:
                (count,) = tx.execute("select count(*) from jobs").fetchone()
                return int(count)

            before = jobs()
            with self.proxy.trap(Way.DOWN, lambda _: jobs() > before) as trap:
                yield trap

    def attempts(self) -> int:
        """Return how often submissions have failed so far."""
        return counted(self.adapter, "select sum(attempts) from submissions")

    def accepted(self) -> int:
        """Return how many submissions the adapter knows to be accepted."""
        return counted(self.adapter, "select count(*) from submissions where state = 'accepted'")

    def jobs(self) -> int:
        """Return how many jobs the platform has ever made."""
        return counted(self.platform, "select count(*) from jobs")

    def settled(self) -> Found:
        """Wait until nothing is left to do anywhere; return what is wrong then."""
        check.settle(self.adapter)
        check.settle(self.platform, at_once=False)
        return self._found()

    def _found(self) -> Found:
        acknowledged, adapter = self.oracle.told(), self.adapter
        found = check.kept(adapter.storage, adapter.ledger, acknowledged, self.oracle.made)
        with closing(sqlite3.connect(adapter.ledger, timeout=30)) as tx:
            tx.execute("attach ? as far", [str(self.platform.ledger)])
            rows = dict(tx.execute("select id, sop_instance_uid from instances"))
            times = {(i, p): count for i, p, count in tx.execute(_WORKED_ON)}
            states = dict(tx.execute("select state, count(*) from submissions group by state"))
            made, keys, ended = tx.execute(
                "select count(*), count(distinct request_id), sum(state = 'finished') from far.jobs"
            ).fetchone()
        for instance, uid in rows.items():
            for pipeline in PIPELINES:
                jobs = times.get((instance, pipeline), 0)
                if not jobs:
                    found.lost.append(f"{uid}: in no job of {pipeline} that ended")
                if jobs > self.oracle.times_sent[uid]:
                    found.duplicated.append(f"{uid}: {jobs} jobs of {pipeline}")
        if not states.keys() <= {"accepted"} or not made == keys == ended == sum(states.values()):
            found.other.append(f"submissions {states}; {made} jobs, {keys} keys, {ended} ended")
        found.other += [f"not the bytes of its name: {path}" for path in _broken(self.platform)]
        found.other += [f"told {status:04X}: {uid}" for uid, status in self.oracle.refused]
        return found


def counted(one: Adapter, query: str) -> int:
    """Return the number that a query of a ledger has for its answer."""
    with check.reading(one.ledger) as tx:
        return int(tx.execute(query).fetchone()[0] or 0)


def _broken(platform: Adapter) -> list[Path]:
    """Return the uploads that are not whole."""
    return [
        path
        for path in files_in(platform.storage / "platform" / "uploads")
        if path.stem.rpartition("-")[2] != sha256(path.read_bytes()).hexdigest()
    ]


# What may happen. Each ends when it is over, and everything is let through again.

Fault = Callable[[Pair], None]


def _more(pair: Pair, failures: int = 1) -> None:
    """Wait until more is received, and submissions have failed for so many times more."""
    before = pair.attempts()
    pair.oracle.wait_for(len(pair.oracle.acknowledged) + 5)
    wait_until(lambda: pair.attempts() >= before + failures)


def down(pair: Pair) -> None:
    """Refuse connections."""
    pair.proxy.down()
    try:
        _more(pair, failures=2)
    finally:
        pair.proxy.up()


def slow(pair: Pair) -> None:
    """Delay all bytes for longer than a call's deadline."""
    pair.proxy.delay = CALL_SECONDS * (1 + secrets.randbelow(50) / 100)
    try:
        _more(pair)
    finally:
        pair.proxy.delay = 0


def deaf(pair: Pair) -> None:
    """Have what was connected swallow everything, as a firewall does that has forgotten it."""
    before = pair.attempts()
    # Again and again: what was there at first may just have been about to break.
    wait_until(lambda: pair.proxy.deafen() and pair.attempts() > before)
    pair.oracle.wait_for(len(pair.oracle.acknowledged) + 5)


def cut_before_an_answer(pair: Pair) -> None:
    """Break the connection when a job has been committed, and nobody was told."""
    before = pair.attempts()
    with pair.committed() as trap:
        trap.wait()
    wait_until(lambda: pair.attempts() > before)


def cut_in_a_request(pair: Pair) -> None:
    """Break the connection after some bytes of whatever is asked or uploaded."""
    most, before = 1 + secrets.randbelow(20_000), pair.attempts()
    with pair.proxy.trap(Way.UP, lambda come: come >= most) as trap:
        trap.wait()
    wait_until(lambda: pair.attempts() > before)


def platform_killed(pair: Pair) -> None:
    """Kill the platform, and start it again after a while."""
    pair.platform.kill()
    _more(pair)
    pair.platform.start()


def adapter_killed(pair: Pair) -> None:
    """Kill the adapter, and start it again."""
    pair.adapter.kill()
    pair.adapter.start()
    pair.oracle.wait_for(len(pair.oracle.acknowledged) + 5)


FAULTS: dict[str, Fault] = {
    "down": down,
    "slow": slow,
    "deaf": deaf,
    "cut before an answer": cut_before_an_answer,
    "cut in a request": cut_in_a_request,
    "platform killed": platform_killed,
    "adapter killed": adapter_killed,
}
KILLS = {"platform killed", "adapter killed"}
