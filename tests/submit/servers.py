"""`dicom-adapter serve` as a process of its own, as a user starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.support import PATIENCE, command


@dataclass
class Served:
    """A running service."""

    folder: Path
    process: "subprocess.Popen[str]"
    ready: dict[str, str]

    @property
    def grpc(self) -> str:
        """Where its gRPC API is served."""
        return self.ready["grpc"]

    @property
    def port(self) -> int:
        """Its DICOM port."""
        return int(self.ready["dicom"].rpartition(":")[2])

    def kill(self) -> None:
        """End it as a power cut does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def log(self) -> str:
        """Return what it has logged so far."""
        return (self.folder / "serve.log").read_text("utf-8")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours against it."""
        return command(*words, folder=self.folder)


@contextmanager
def serving(folder: Path, text: str) -> Iterator[Served]:
    """Run a service with a configuration text, its file and data in a folder, until the end."""
    folder.mkdir(exist_ok=True)
    (folder / "dicom-adapter.yaml").write_text(text, "utf-8")
    with (folder / "serve.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_adapter", "serve"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:1] == ["ready"], (folder / "serve.log").read_text("utf-8")
        yield Served(folder, process, dict(word.split("=") for word in words[1:]))
        if process.poll() is None:
            process.terminate()
            assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def ended(client: Client, job: str) -> jobs_pb2.Job:
    """Wait for a job's end over the API, and return it."""
    with client.errors():
        changes = list(client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(job=job), timeout=PATIENCE))
    return changes[-1].job
