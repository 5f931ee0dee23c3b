"""Both services are killed: the item is run by one job there, and its end is found."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import part10, wait_for_file
from tests.remote.harness import FAR, NEAR, free_port, known, request_of
from tests.submit.servers import ended
from tests.support import PATIENCE, running

# One import of it all serves every process: a start of Python for each takes its seconds.
CONTEXT = get_context("forkserver")


def serve(folder: Path, text: str, ready: Connection) -> None:
    """Run a service until it is killed."""
    with running(folder, text) as made:
        ready.send(made.ready.grpc[0])
        threading.Event().wait()


@contextmanager
def process(folder: Path, text: str) -> Iterator[tuple[BaseProcess, str]]:
    """Run a service as a process, and give it and where it is served."""
    folder.mkdir(exist_ok=True)
    end, other = CONTEXT.Pipe()
    made = CONTEXT.Process(target=serve, args=(folder, text, other))
    made.start()
    other.close()
    try:
        assert end.poll(PATIENCE * 3)
        yield made, end.recv()
    finally:
        end.close()
        made.kill()
        made.join(PATIENCE)
        assert made.exitcode == -signal.SIGKILL


def test_a_kill_of_both_services_leaves_one_job_that_finishes(tmp_path: Path) -> None:
    """After kill -9 here the next attempt takes on the job there, and waits for it.

    After kill -9 there that job runs again, as it does for everybody.
    """
    CONTEXT.set_forkserver_preload(["tests.remote.test_killed"])
    port, shown = free_port(), known(tmp_path)
    here = NEAR.replace("PORT", str(port))
    there = FAR.replace("FOLDER", str(tmp_path)).replace("PORT", str(port))
    with process(tmp_path / "platform", there) as (far, _):
        with process(tmp_path / "near", here) as (near, address), Client(address) as client:
            data = [part10(), part10()]
            job_id = client.submit(request_of(client, tmp_path, data, "work", "study"))
            wait_for_file(tmp_path / "study.up")
            near.kill()
        with process(tmp_path / "near", here) as (near, address), Client(address) as client:
            (tmp_path / "study.up").unlink()
            far.kill()
            far.join(PATIENCE)
            with process(tmp_path / "platform", there), Client(f"127.0.0.1:{port}", shown) as its:
                wait_for_file(tmp_path / "study.up")
                (tmp_path / "study.go").touch()
                mine = ended(client, job_id)
                (other,) = its.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs
    assert (mine.state, mine.attempts) == (jobs_pb2.JOB_STATE_FINISHED, 2), mine.error
    assert (other.state, other.attempts) == (jobs_pb2.JOB_STATE_FINISHED, 2)
    assert list(mine.outputs) == list(other.outputs)
