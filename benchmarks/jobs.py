"""Measures the queue: lists and claims in a ledger of a million jobs, and a service that runs jobs.

`python -m benchmarks.jobs` prints the medians. The ledger is filled by its own tables; everything
else goes through a service that is another process, and its gRPC API.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from sqlalchemy import insert

from dicom_adapter.ledger import Ledger, jobs, queue, turns
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.ledger.schema import job_inputs, job_items
from dicom_adapter.ledger.schema import jobs as table
from dicom_adapter.ledger.turns import Rules
from dicom_adapter.lifecycle import ItemState, JobState
from dicom_adapter.model import InputFile, JobInput, JobRequest, Priority, Resources
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2, platform_pb2

JOBS = 1_000_000
WAITING = 10_000
BATCH = 50_000
SHORT = 500
PAGE = 100
ROUNDS = 21
IDLE_SECONDS = 10.0
RUNNING = 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Most jobs have finished; of the last ones of each run all wait.
STATES = {"finished": 900, "failed": 80, "cancelled": 15, "invalidated": 5}

CONFIG = f"""
dicom: {{host: 127.0.0.1, port: 0}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
log: {{level: warning}}
platform: {{max_jobs: {RUNNING}, capacity: {{cpus: 64, memory: 64GiB}}}}
pipelines:
  short: {{command: ["true"], resources: {{memory: 1MiB}}}}
  long: {{command: [sleep, "1000"], resources: {{memory: 1MiB}}}}
ae_titles: {{TEST: {{settings: {{pipeline-short: short}}}}}}
"""


def main() -> None:
    """Print a table of the ledger, and one of a service."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        _ledger(Path(name))
    with tempfile.TemporaryDirectory(dir=".") as name:
        _service(Path(name))


def _print(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def _milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    taken = []
    for _ in range(rounds):
        before = time.perf_counter()
        work()
        taken.append((time.perf_counter() - before) * 1000)
    return statistics.median(taken)


# The ledger


def _ledger(folder: Path) -> None:
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    ledger.open()
    for start in range(0, JOBS, BATCH):
        print(f"{start} jobs of {JOBS}", file=sys.stderr)
        _fill(ledger, range(start, min(start + BATCH, JOBS)))
    print(f"| {JOBS:,} jobs, {WAITING:,} of them waiting | ms |")
    print("| --- | ---: |")
    for what, wanted in filters().items():
        _print(f"a page of {PAGE}, {what}", f"{_milliseconds(_listing(ledger, wanted)):.1f}")
    _print("claiming the next job", f"{_milliseconds(_claiming(ledger)):.1f}")
    _print("how many are before the last one", f"{_milliseconds(_standing(ledger)):.1f}")
    ledger.close()


def _fill(ledger: Ledger, numbers: range) -> None:
    chosen = random.Random(numbers.start)  # noqa: S311 - no secret
    rows = [_row(number, chosen) for number in numbers]
    items = [
        {"id": f"{row['id']}i", "job_id": row["id"], "position": 0, "state": _item_state(row)}
        for row in rows
    ]
    one = {"position": 0, "study": "1.2", "series": "1.2.3", "range": "all", "instances": 1}
    with ledger.write() as tx:
        tx.execute(insert(table), rows)
        tx.execute(insert(job_items), items)
        tx.execute(insert(job_inputs), [{"item_id": item["id"], **one} for item in items])


def _row(number: int, chosen: random.Random) -> dict[str, Any]:
    at = NOW + timedelta(seconds=number)
    (state,) = chosen.choices(list(STATES), list(STATES.values()))
    waits = number >= JOBS - WAITING
    return {
        "id": f"{number:032x}",
        "name": f"job-{number}",
        "request_id": str(number),
        "request_sha256": "",
        "project": "default",
        "pipeline": chosen.choice(["lung", "heart", "breast"]),
        "pipeline_version": "1",
        "command": ["true"],
        "state": JobState.IN_QUEUE if waits else state,
        "priority": chosen.choice(list(Priority)),
        # One of a million is of a third AE title.
        "ae_title": chosen.choice(["CT", "MR"]) if number else "RARE",
        "instances": 1,
        "arguments": {},
        "cpus": 1,
        "memory": 1,
        "gpus": 0,
        "created_at": at,
        "queued_at": at,
        "started_at": None if waits else at,
        "finished_at": None if waits else at,
    }


def _item_state(row: Mapping[str, Any]) -> ItemState:
    """Return what the one item of a job is: one of an invalidated job has finished."""
    if row["state"] == JobState.INVALIDATED:
        return ItemState.FINISHED
    return ItemState(row["state"])


def filters() -> dict[str, JobFilter]:
    """Return the filters that are measured, by what they are."""
    failed = (JobState.FAILED, JobState.CANCELLED)
    return {
        "no filter": JobFilter(),
        **{f"state {state}": JobFilter(states=(state,)) for state in JobState},
        "one pipeline": JobFilter(pipeline="lung"),
        "a pipeline that has no job": JobFilter(pipeline="none"),
        "one AE title": JobFilter(ae_title="CT"),
        "an AE title of one job": JobFilter(ae_title="RARE"),
        "a name": JobFilter(name="job-5"),
        "two states, a pipeline and an AE title": JobFilter(failed, "lung", "CT"),
        "two states, a pipeline and the rare AE title": JobFilter(failed, "lung", "RARE"),
    }


def _listing(ledger: Ledger, wanted: JobFilter) -> Callable[[], None]:
    def work() -> None:
        with ledger.read() as tx:
            jobs.listed(tx, wanted, PAGE)

    return work


def _claiming(ledger: Ledger) -> Callable[[], None]:
    rules = Rules(Resources(64, 64, 0), 64, timedelta(hours=1), {})

    def work() -> None:
        with ledger.write() as tx:
            job_id = turns.next_turn(tx, rules, NOW)
            if job_id is None:
                raise RuntimeError("no job could be claimed")
            queue.claim(tx, job_id, NOW)

    return work


def _standing(ledger: Ledger) -> Callable[[], None]:
    rules = Rules(Resources(64, 64, 0), 64, timedelta(hours=1), {})

    def work() -> None:
        with ledger.read() as tx:
            turns.before(tx, rules, jobs.get(tx, f"job-{JOBS - 1}"))

    return work


# A service


@dataclass(frozen=True)
class _Served:
    process: "subprocess.Popen[str]"
    client: Client

    def waiting(self) -> int:
        """Return how many jobs wait."""
        return int(self._state().waiting)

    def running(self) -> int:
        """Return how many jobs run."""
        return int(self._state().running)

    def _state(self) -> platform_pb2.Platform:
        return self.client.platform.GetPlatform(platform_pb2.GetPlatformRequest())


@contextmanager
def _serving(folder: Path) -> Iterator[_Served]:
    (folder / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "dicom_adapter", "serve"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the service does not start")
        with Client(f"unix:{folder.resolve()}/data/run/grpc.sock") as client:
            yield _Served(process, client)
    finally:
        # With what it runs; nothing where it was killed.
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _service(folder: Path) -> None:
    print("\n| a service | |")
    print("| --- | ---: |")
    with _serving(folder) as served:
        inputs = _uploaded(served, folder)
        _short(served, inputs)
        served.client.platform.PausePlatform(platform_pb2.PausePlatformRequest())
        for number in range(WAITING + RUNNING):
            if number % 1000 == 0:
                print(f"{number} jobs of {WAITING}", file=sys.stderr)
            served.client.submit(_request("long", inputs))
        _print(f"idle, {WAITING:,} waiting", f"{_idle(served):.1%} of a core")
        served.client.platform.ResumePlatform(platform_pb2.ResumePlatformRequest())
        _wait_for(lambda: served.running() == RUNNING)
        _print(f"the same beside {RUNNING} that run", f"{_idle(served):.1%} of a core")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    began = time.monotonic()
    with _serving(folder) as served:
        ready = time.monotonic() - began
        _wait_for(lambda: served.running() == RUNNING)
        again = time.monotonic() - began
        _print(f"kill -9 with {WAITING:,} waiting and {RUNNING} running: serving", f"{ready:.1f} s")
        _print("the same: all of them run again", f"{again:.1f} s")
        if served.waiting() != WAITING:
            raise RuntimeError("a job was lost")


def _uploaded(served: _Served, folder: Path) -> tuple[JobInput, ...]:
    file = folder / "instance.dcm"
    file.write_bytes(b"\0" * 128 + b"DICM" + os.urandom(1000))
    instance = InputFile(uuid4().hex, sha256(file.read_bytes()).hexdigest(), "1.2.3.4")
    served.client.upload(instance, file)
    return (JobInput("1.2", "1.2.3", "all", (instance,)),)


def _request(pipeline: str, inputs: Sequence[JobInput]) -> JobRequest:
    return JobRequest(
        request_id=uuid4().hex,
        name=f"bench-{pipeline}",
        pipeline=pipeline,
        priority=Priority.NORMAL,
        ae_title="TEST",
        items=(tuple(inputs),),
    )


def _short(served: _Served, inputs: Sequence[JobInput]) -> None:
    process = psutil.Process(served.process.pid)
    began, before = time.monotonic(), process.cpu_times()
    for _ in range(SHORT):
        served.client.submit(_request("short", inputs))
    taken = time.monotonic() - began
    _print("jobs submitted a second, by one caller", f"{SHORT / taken:.0f}")
    _wait_for(lambda: served.waiting() + served.running() == 0)
    taken, after = time.monotonic() - began, process.cpu_times()
    request = jobs_pb2.ListJobsRequest(states=[jobs_pb2.JOB_STATE_FINISHED], page_size=1000)
    if len(served.client.jobs.ListJobs(request).jobs) != SHORT:
        raise RuntimeError("a job has not finished")
    _print("short jobs a second: submitted, run and finished", f"{SHORT / taken:.0f}")
    spent = (after.user + after.system - before.user - before.system) / SHORT
    _print("processor time of the service for each", f"{spent * 1000:.1f} ms")


def _idle(served: _Served) -> float:
    process = psutil.Process(served.process.pid)
    time.sleep(IDLE_SECONDS / 2)
    before = process.cpu_times()
    time.sleep(IDLE_SECONDS)
    after = process.cpu_times()
    # Two sums of the same numbers may differ by less than nothing.
    return max(0.0, after.user + after.system - before.user - before.system) / IDLE_SECONDS


def _wait_for(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not so():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not come to that")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
