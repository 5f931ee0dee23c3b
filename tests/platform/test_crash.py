import json
import os
import signal
import stat
import time
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import text

from dicom_adapter.ledger import queue
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.model import LOCAL, InputFile, JobInput, JobRequest, Priority
from dicom_adapter.platform.workspace import Workspace
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import Platform, part10, platform, sh, wait_for_file
from tests.submit.servers import ended, serving
from tests.support import PATIENCE

CONFIG = """
grpc: {listen: null}
pipelines:
  slow:
    command:
      - sh
      - -c
      - >-
        echo said; echo once >> "$0/out"; setsid sleep 1000 & echo $! $$ > $1;
        until [ -e $2 ]; do sleep 0.01; done
      - "{output}"
      - FOLDER/pids
      - FOLDER/go
    resources: {memory: 1MiB}
"""


ONCE = 'echo once >> "$DICOM_ADAPTER_OUTPUT/out"'


def submit(client: Client, folder: Path) -> str:
    """Upload an instance and submit a job of it; return the job's id."""
    data = part10()
    (folder / "file").write_bytes(data)
    file = InputFile("a-1", sha256(data).hexdigest(), "1.2.3")
    client.upload(file, folder / "file")
    items = ((JobInput("1.2", "1.2.3", "all", (file,)),),)
    return client.submit(JobRequest("r-1", "crash", "slow", Priority.NORMAL, "", items))


def test_r5_a_killed_service_finishes_its_jobs_after_the_start(tmp_path: Path) -> None:
    """After kill -9 in mid-job the next start ends what lived on, and runs the job again.

    No job stays processing; the folder of a submission that nobody was told of is swept. What it
    had written before the kill is in its log, and the next attempt's lines follow it.
    """
    config = CONFIG.replace("FOLDER", str(tmp_path))
    with serving(tmp_path / "data-1", config) as first:
        with Client(first.grpc) as client:
            job_id = submit(client, tmp_path)
            wait_for_file(tmp_path / "pids")
        said = first.folder / "data" / "platform" / "jobs" / job_id / "log.txt"
        while not said.read_text():
            time.sleep(0.01)
        first.kill()
    survivors = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
    assert len(survivors) == 2
    jobs = first.folder / "data" / "platform" / "jobs"
    (jobs / ("f" * 32) / "input").mkdir(parents=True)
    assert said.read_text() == "said\n"
    (tmp_path / "pids").unlink()
    with serving(tmp_path / "data-1", config) as second, Client(second.grpc) as client:
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in survivors)
        wait_for_file(tmp_path / "pids")
        (tmp_path / "go").touch()
        job = ended(client, job_id)
        assert [path.name for path in jobs.iterdir()] == [job_id]
        assert (jobs / job_id / "output" / "out").read_text() == "once\n"
        logs = client.jobs.StreamLogs(jobs_pb2.StreamLogsRequest(job=job_id))
        assert b"".join(chunk.data for chunk in logs) == b"said\n--- attempt 2 ---\nsaid\n"
    assert MessageToDict(job)["state"] == "JOB_STATE_FINISHED"
    assert job.attempts == 2
    assert "jobs of an earlier run were put right" in second.log()


def test_r5_a_killed_service_fails_its_jobs_where_it_is_told_to(tmp_path: Path) -> None:
    """With `on_lost: fail` a job that kill -9 cut off ends, says why, and is not run again."""
    config = CONFIG.replace("FOLDER", str(tmp_path)) + "platform: {on_lost: fail}\n"
    with serving(tmp_path / "data-1", config) as first:
        with Client(first.grpc) as client:
            job_id = submit(client, tmp_path)
            wait_for_file(tmp_path / "pids")
        first.kill()
    survivors = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
    folder = first.folder / "data" / "platform" / "jobs" / job_id
    assert (folder / "staging" / "out").exists()
    with serving(tmp_path / "data-1", config) as second, Client(second.grpc) as client:
        job = ended(client, job_id)
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in survivors)
        assert {path.name for path in folder.iterdir()} == {"input", "job.json", "log.txt"}
    assert MessageToDict(job)["state"] == "JOB_STATE_FAILED"
    assert (job.reason, job.attempts, list(job.outputs)) == ("lost", 1, [])
    assert job.error.startswith("the service ended while it ran; ")


class Moment(StrEnum):
    """When a platform dies that finishes a job."""

    BEFORE_RENAME = "before the outputs are put where they belong"
    BEFORE_COMMIT = "between that and the commit of the ledger"
    AFTER_COMMIT = "right after the commit"


def die_finishing(folder: Path, moment: Moment) -> None:
    """Run a job in this process, and kill the process at a moment of the job's end."""
    commit, discard = Workspace.commit_outputs, Workspace.discard_staged

    def commit_or_die(workspace: Workspace) -> None:
        if moment != Moment.BEFORE_RENAME:
            commit(workspace)
        if moment != Moment.AFTER_COMMIT:
            os.kill(os.getpid(), signal.SIGKILL)

    def discard_or_die(workspace: Workspace) -> None:
        # The first that is done after the commit; there is no output when it is done before.
        if workspace.output.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        discard(workspace)

    with (
        patch.object(Workspace, "commit_outputs", commit_or_die),
        patch.object(Workspace, "discard_staged", discard_or_die),
        platform(folder, sh(ONCE)) as made,
    ):
        made.until(made.submit(), "never")


def kill_in(victim: Callable[..., None], *arguments: object, **named: object) -> None:
    """Run what kills its own process, in one of its own."""
    process = get_context("spawn").Process(target=victim, args=arguments, kwargs=named)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def die_submitting(folder: Path, *, is_committed: bool) -> None:
    """Make a job in this process, and kill the process just before its commit, or just after."""
    add = queue.add

    def add_and_die(*arguments: Any) -> None:  # noqa: ANN401 - passed on
        add(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    def die(_: Platform) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    moment = (
        patch.object(Platform, "wake", die)
        if is_committed
        else patch.object(queue, "add", add_and_die)
    )
    with moment, platform(folder, sh(ONCE)) as made:
        made.submit()


@pytest.mark.parametrize("is_committed", [False, True])
def test_r4_a_job_is_made_and_put_into_the_queue_together(
    tmp_path: Path, *, is_committed: bool
) -> None:
    """A power cut leaves nothing of it, or a job that waits, and runs after the next start."""
    kill_in(die_submitting, tmp_path, is_committed=is_committed)
    with platform(tmp_path, sh(ONCE)) as made:
        found = made.views.listed(LOCAL, JobFilter(), 10, "").jobs
        assert len(found) == is_committed
        assert [made.until(job).state for job in found] == ["finished"] * is_committed
        assert made.workspaces.all_ids() == [job.id for job in found]
        with made.ledger.read() as tx:
            told = tx.execute(text("SELECT subject FROM events WHERE action = 'create'"))
            assert list(told.scalars()) == [job.id for job in found]


def die_retrying(folder: Path, *, is_committed: bool) -> None:
    """Retry a finished job in this process, and kill it just before the commit, or just after."""
    supersede = Workspace.supersede_outputs

    def supersede_and_die(workspace: Workspace, attempt: int) -> None:
        supersede(workspace, attempt)
        os.kill(os.getpid(), signal.SIGKILL)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with platform(folder, sh(ONCE)) as made:
        job = made.until(made.submit())
        moment = (
            patch.object(Path, "unlink", die)
            if is_committed
            else patch.object(Workspace, "supersede_outputs", supersede_and_die)
        )
        made.scheduler.stop(PATIENCE)
        with moment:
            made.control.retry(LOCAL, job.id, confirm=True)


@pytest.mark.parametrize("is_committed", [False, True])
def test_t11_a_killed_retry_leaves_the_outputs_where_the_ledger_says(
    tmp_path: Path, *, is_committed: bool
) -> None:
    """A power cut leaves a job that has finished with its outputs, or one that runs again."""
    kill_in(die_retrying, tmp_path, is_committed=is_committed)
    with platform(tmp_path, sh(ONCE)) as made:
        (job,) = made.views.listed(LOCAL, JobFilter(), 10, "").jobs
        ended = made.until(job)
        assert (ended.state, ended.attempts) == ("finished", 2 if is_committed else 1)
        assert set(ended.superseded_outputs) == ({1} if is_committed else set())
        assert made.output_of(ended, "out") == "once\n"
        assert [path.name for path in made.workspaces.folder.iterdir()] == [job.id]


@pytest.mark.parametrize("moment", Moment)
def test_t7_r9_outputs_and_state_are_committed_together(tmp_path: Path, moment: Moment) -> None:
    """A power cut leaves a finished job with its outputs, or one that is run again from nothing."""
    kill_in(die_finishing, tmp_path, moment)
    with platform(tmp_path, sh(ONCE)) as made:
        (job,) = made.views.listed(LOCAL, JobFilter(), 10, "").jobs
        again = moment != Moment.AFTER_COMMIT
        ended = made.until(job)
        assert (ended.state, ended.attempts) == ("finished", 2 if again else 1)
        assert [output.path for output in ended.outputs] == ["out"]
        assert made.output_of(job, "out") == "once\n"
        record = json.loads(b"".join(made.views.provenance(LOCAL, job.id)))
        assert record["job"]["attempt"] == ended.attempts
        assert record["finished_at"] == f"{ended.finished_at:%Y-%m-%dT%H:%M:%SZ}"


def test_r9_outputs_of_a_job_that_a_crash_cut_off_are_not_its(tmp_path: Path) -> None:
    """Outputs that were put in place, but not committed, are gone when their job has failed."""
    kill_in(die_finishing, tmp_path, Moment.BEFORE_COMMIT)
    (folder,) = (tmp_path / "platform" / "jobs").iterdir()
    assert (folder / "output" / "out").exists()
    assert (folder / "provenance.json").exists()
    with platform(tmp_path, sh(ONCE), on_lost="fail") as made:
        job = made.views.get(LOCAL, folder.name)
        assert (job.state, job.reason, job.outputs) == ("failed", "lost", ())
        assert {path.name for path in folder.iterdir()} == {"input", "job.json", "log.txt"}


def test_everything_on_the_disk_is_the_services_alone(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600 or less; the socket is 0600 in a folder of 0700."""
    config = CONFIG.replace("FOLDER", str(tmp_path))
    (tmp_path / "go").touch()
    with serving(tmp_path / "data-1", config) as served:
        data = served.folder / "data"
        with Client(f"unix:{data / 'run' / 'grpc.sock'}") as client:
            ended(client, submit(client, tmp_path))
            assert client.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [data, *data.rglob("*")]}
        socket = data / "run" / "grpc.sock"
        assert socket.is_socket()
        assert (modes.pop(socket), modes[socket.parent]) == (0o600, 0o700)
    inputs = {path for path in modes if path.suffix == ".dcm"}
    assert {modes[path] for path in inputs} == {0o440}
    assert {oct(modes[p]) for p in modes if p.is_dir()} == {oct(0o700)}
    assert {oct(modes[p]) for p in modes.keys() - inputs if not p.is_dir()} == {oct(0o600)}
