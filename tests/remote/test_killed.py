"""Both services are killed: the item is run by one job there, and its end is found."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import part10, wait_for_file
from tests.remote.harness import FAR, NEAR, free_port, known, request_of
from tests.submit.servers import Served, ended, serving


def serve(running: ExitStack, folder: Path, port: int) -> tuple[Served, Served]:
    """Start both services at once: who hands over, and who works."""
    texts = {
        "near": NEAR.replace("PORT", str(port)),
        "platform": FAR.replace("FOLDER", str(folder)).replace("PORT", str(port)),
    }
    with ThreadPoolExecutor(2) as pool:
        starts = [
            pool.submit(running.enter_context, serving(folder / name, text))
            for name, text in texts.items()
        ]
    here, there = (start.result() for start in starts)
    return here, there


def test_a_kill_of_both_services_leaves_one_job_that_finishes(tmp_path: Path) -> None:
    """After kill -9 the next attempt here takes on the job there, which runs again by itself."""
    port, shown = free_port(), known(tmp_path)
    (tmp_path / "near").mkdir()
    with ExitStack() as running:
        here, there = serve(running, tmp_path, port)
        with Client(here.grpc) as client:
            data = [part10(), part10()]
            job_id = client.submit(request_of(client, here.folder, data, "work", "study"))
            wait_for_file(tmp_path / "up")
        here.kill()
        there.kill()
        (tmp_path / "up").unlink()
        here, there = serve(running, tmp_path, port)
        with Client(here.grpc) as client, Client(there.grpc, shown) as theirs:
            wait_for_file(tmp_path / "up")
            (tmp_path / "go").touch()
            mine = ended(client, job_id)
            (its,) = theirs.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs
        assert (mine.state, mine.attempts) == (jobs_pb2.JOB_STATE_FINISHED, 2), mine.error
        assert (its.state, its.attempts) == (jobs_pb2.JOB_STATE_FINISHED, 2)
        assert list(mine.outputs) == list(its.outputs)
