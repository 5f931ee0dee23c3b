"""What must be true of the data of a service, whatever happened to it."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import grpc

from dicom_adapter.errors import UnavailableError
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import adapter_pb2
from tests.receive.support import data_set_of
from tests.support import PATIENCE, files_in
from tests.torture.adapter import Adapter, wait_until
from tests.torture.oracle import Oracle, Sent

# What is still to be done, by anybody, in the order in which it comes to it.
_UNFINISHED = {
    "instances": "select count(*) from instances where state = 'received'",
    "groups": "select count(*) from groups where state = 'open'",
    "submissions": "select count(*) from submissions where state = 'pending'",
    "jobs": "select count(*) from jobs where state not in ('finished', 'failed', 'cancelled')",
}
_LAST_ERRORS = "select attempts, error from submissions where state = 'pending' limit 3"
_LOOK_SECONDS = 0.05
#: How often an instance came to a job that ended well, by a submission that was accepted.
WORKED_ON = """
select f.instance_id, count(*) from job_files f
join job_items i on i.id = f.item_id
join jobs j on j.id = i.job_id
join submissions s on s.id = j.request_id and s.job_id = j.id
join submission_instances si on si.submission_id = s.id and si.instance_id = f.instance_id
where j.state = 'finished' and s.state = 'accepted' and j.pipeline = 'copy'
group by f.instance_id
"""


@dataclass
class Found:
    """What is wrong, and what was counted."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    #: Files that no row knows: of instances that nobody was told were stored.
    orphans: int = 0

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be."""
        return self.lost + self.duplicated + self.other


@contextmanager
def reading(ledger: Path) -> Iterator[sqlite3.Connection]:
    """Read a ledger past the service."""
    with closing(sqlite3.connect(ledger, timeout=30)) as connection:
        yield connection


def settle(adapter: Adapter, *, at_once: bool = True) -> None:
    """Wait until a service has nothing left to do; no group waits for more, unless it is asked.

    As long as it gets on it is waited for: a machine may be slow, and there much. One more step
    of what is earliest in its way is less to do, however much that makes of what comes later.
    """
    if at_once:
        with Client(adapter.socket) as client:
            wait_until(lambda: completed(adapter, client))
    least = left = _unfinished(adapter.ledger)
    deadline = time.monotonic() + PATIENCE
    while any(left.values()):
        time.sleep(_LOOK_SECONDS)
        left = _unfinished(adapter.ledger)
        if tuple(left.values()) < tuple(least.values()):
            least, deadline = left, time.monotonic() + PATIENCE
        assert time.monotonic() < deadline, _told(adapter, left)


def hand_over(adapter: Adapter) -> None:
    """Have the groups that are open handed over, if the service lives that long."""
    with suppress(UnavailableError), Client(adapter.socket) as client:
        complete(adapter, client)


def is_handled(ledger: Path) -> bool:
    """Tell whether every instance has come to its group."""
    with reading(ledger) as tx:
        (count,) = tx.execute("select count(*) from instances where state='received'").fetchone()
    return not count


def _unfinished(ledger: Path) -> dict[str, int]:
    with reading(ledger) as tx:
        return {what: int(tx.execute(query).fetchone()[0]) for what, query in _UNFINISHED.items()}


def _told(adapter: Adapter, left: Mapping[str, int]) -> str:
    """Say what does not become less, and what the service has to say of it."""
    with reading(adapter.ledger) as tx:
        errors = tx.execute(_LAST_ERRORS).fetchall()
    return f"{left} for {PATIENCE:g} s; {errors}; {adapter.log[-2000:]}"


def completed(adapter: Adapter, client: Client) -> bool:
    """Have every open group handed over once every instance has come to one; else False."""
    if not is_handled(adapter.ledger):
        return False
    complete(adapter, client)
    return True


def complete(adapter: Adapter, client: Client) -> None:
    """Have every group handed over that is open now, though more may be about to come to it."""
    with reading(adapter.ledger) as tx:
        groups = [group for (group,) in tx.execute("select id from groups where state = 'open'")]
    # A group that is due meanwhile is handed over without being asked.
    with suppress(grpc.RpcError):
        client.adapter.CompleteGroups(adapter_pb2.ChosenRequest(ids=groups))


def kept(
    storage: Path, ledger: Path, acknowledged: Mapping[str, Sent], made: Mapping[str, Sent]
) -> Found:
    """Compare the instances on the disk with what their senders were told."""
    found = Found()
    rows = []
    try:
        with reading(ledger) as tx:
            rows = tx.execute("select id, sop_instance_uid, sha256 from instances").fetchall()
    except sqlite3.Error as error:
        found.other.append(f"the ledger: {error}")
    paths = {path.stem: path for path in files_in(storage / "spool" / "instances")}
    found.orphans = len(paths.keys() - {instance for instance, *_ in rows})
    for (uid, _), times in Counter(row[1:] for row in rows).items():
        if times > 1:
            found.duplicated.append(f"{uid}: {times} rows")
    whole = set()
    for instance, uid, digest in rows:
        if _is_whole(paths.get(instance), digest, uid, made, found):
            whole.add(uid)
    found.lost += [f"{uid}: acknowledged, and lost" for uid in acknowledged.keys() - whole]
    known = {sent.sha256 for sent in made.values()}
    for path in paths.values():
        if _data_set_sha256(path) not in known:
            found.other.append(f"{path.name}: not what anybody sent")
    return found


def _is_whole(
    path: Path | None, digest: str, uid: str, made: Mapping[str, Sent], found: Found
) -> bool:
    """Tell whether the file of a row is there with the bytes that were sent."""
    if path is None:
        found.other.append(f"{uid}: a row without a file")
        return False
    if sha256(path.read_bytes()).hexdigest() != digest:
        found.other.append(f"{uid}: not the bytes of its row")
        return False
    return _data_set_sha256(path) == made[uid].sha256


def _data_set_sha256(path: Path) -> str:
    try:
        return sha256(data_set_of(path)).hexdigest()
    except AssertionError:
        return "no Part 10 file"


def all_of(
    adapter: Adapter, oracle: Oracle, acknowledged: Mapping[str, Sent] | None = None
) -> Found:
    """Check a service that has settled, and is sent nothing.

    What had been acknowledged when the power went is named; otherwise it is all that is by now.
    """
    acknowledged = oracle.told() if acknowledged is None else acknowledged
    found = kept(adapter.storage, adapter.ledger, acknowledged, oracle.made)
    with reading(adapter.ledger) as tx:
        rows = dict(tx.execute("select id, sop_instance_uid from instances"))
        times = dict(tx.execute(WORKED_ON))
        (files,) = tx.execute("select count(*) from job_files").fetchone()
        states = dict(tx.execute("select state, count(*) from jobs group by state"))
        parked = tx.execute("select count(*) from submissions where state = 'parked'").fetchone()
    for instance, uid in rows.items():
        if not times.get(instance):
            found.lost.append(f"{uid}: in no job that ended")
        if times.get(instance, 0) > oracle.times_sent[uid]:
            found.duplicated.append(f"{uid}: {times[instance]} jobs")
    if files != sum(times.values()):
        found.other.append(f"{files} inputs of jobs, {sum(times.values())} by submissions")
    if states.keys() - {"finished"} or parked != (0,):
        found.other.append(f"jobs {states}, {parked[0]} submissions parked")
    # Nobody sends, so what is half received is of before the start.
    found.other += [
        f"left over: {path}" for path in files_in(adapter.storage / "spool" / "incoming")
    ]
    return found
