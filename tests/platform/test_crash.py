import stat
from hashlib import sha256
from pathlib import Path

import psutil
from google.protobuf.json_format import MessageToDict

from dicom_adapter.model import InputFile, JobInput, JobRequest, Priority
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import part10, wait_for_file
from tests.submit.servers import ended, serving

CONFIG = """
grpc: {listen: "127.0.0.1:0"}
pipelines:
  slow:
    command:
      - sh
      - -c
      - >-
        echo once >> "$0/out"; setsid sleep 1000 & echo $! $$ > $1;
        until [ -e $2 ]; do sleep 0.01; done
      - "{output}"
      - FOLDER/pids
      - FOLDER/go
    resources: {memory: 1MiB}
"""


def submit(client: Client, folder: Path) -> str:
    """Upload an instance and submit a job of it; return the job's id."""
    data = part10()
    (folder / "file").write_bytes(data)
    file = InputFile("a-1", sha256(data).hexdigest(), "1.2.3")
    client.upload(file, folder / "file")
    inputs = (JobInput("1.2", "1.2.3", "all", (file,)),)
    return client.submit(JobRequest("r-1", "crash", "slow", Priority.NORMAL, "", inputs))


def test_a_killed_service_finishes_its_jobs_after_the_start(tmp_path: Path) -> None:
    """After kill -9 in mid-job the next start ends what lived on, and runs the job again.

    No job stays processing; the folder of a submission that nobody was told of is swept.
    """
    text = CONFIG.replace("FOLDER", str(tmp_path))
    with serving(tmp_path / "data-1", text) as first:
        with Client(first.grpc) as client:
            job_id = submit(client, tmp_path)
            wait_for_file(tmp_path / "pids")
        first.kill()
    survivors = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
    assert len(survivors) == 2
    jobs = first.folder / "data" / "platform" / "jobs"
    (jobs / ("f" * 32) / "input").mkdir(parents=True)
    (tmp_path / "pids").unlink()
    with serving(tmp_path / "data-1", text) as second, Client(second.grpc) as client:
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in survivors)
        wait_for_file(tmp_path / "pids")
        (tmp_path / "go").touch()
        job = ended(client, job_id)
        assert [path.name for path in jobs.iterdir()] == [job_id]
        assert (jobs / job_id / "output" / "out").read_text() == "once\n"
    assert MessageToDict(job)["state"] == "JOB_STATE_FINISHED"
    assert job.attempts == 2
    assert "jobs of an earlier run were put right" in second.log()


def test_everything_on_the_disk_is_the_services_alone(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600 or less; the socket is 0600 in a folder of 0700."""
    text = CONFIG.replace("FOLDER", str(tmp_path))
    (tmp_path / "go").touch()
    with serving(tmp_path / "data-1", text) as served:
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
