"""A platform behind a gRPC server on a free port, and a client of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.server import Server
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import Platform, platform, sh


@dataclass
class Served:
    """A served platform."""

    platform: Platform
    client: Client
    address: str

    @property
    def jobs(self) -> list[str]:
        """The names of all jobs, newest first."""
        return [job.name for job in self.client.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs]

    @property
    def workspaces(self) -> list[str]:
        """The folders of jobs on the disk."""
        return self.platform.workspaces.all_ids()

    @property
    def uploads(self) -> list[str]:
        """The files of uploads on the disk."""
        folder = self.platform.folder / "platform" / "uploads"
        return sorted(path.name for path in folder.iterdir())


@contextmanager
def serve(made: Platform) -> Iterator[Served]:
    """Serve a platform until the block ends."""
    server = Server(made.served, None, made.access)
    port = server.listen("127.0.0.1:0")
    server.start()
    address = f"127.0.0.1:{port}"
    with Client(address, made.known_as("somebody")) as client:
        yield Served(made, client, address)
    server.stop(0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A platform with a pipeline that ends at once, one that waits for a file, one that fails."""
    wait = "echo early; until [ -e ../../go ]; do sleep 0.01; done; echo late"
    pipelines = (
        sh("echo done"),
        sh(wait, "wait", steps=("a", "b"), description="It waits."),
        sh("exit 1", "fail"),
    )
    with platform(tmp_path, *pipelines) as made, serve(made) as found:
        yield found
