"""What a job has put out is given to those who may look at the job, and nothing else is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import jobs
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Job
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.server import Server
from tests.platform.harness import Platform, platform, sh

SCRIPT = """
mkdir "$DICOM_ADAPTER_OUTPUT/sub"
printf plain > "$DICOM_ADAPTER_OUTPUT/plain"
head -c 200000 /dev/zero > "$DICOM_ADAPTER_OUTPUT/sub/zero file"
"""


@dataclass
class Served:
    """A platform with a job that has finished, and somebody who may look at it."""

    made: Platform
    address: str
    client: Client
    job: Job

    def output(self, path: str) -> bytes:
        """Fetch an output of the job."""
        return b"".join(self.client.output(self.job.id, path))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A served platform whose one job has finished."""
    with platform(tmp_path, sh(SCRIPT), sh("exit 1", "fail")) as made:
        server = Server(made.served, None, made.access)
        address = f"127.0.0.1:{server.listen('127.0.0.1:0')}"
        server.start()
        with Client(address, made.known_as("viewer", Role.VIEWER)) as client:
            yield Served(made, address, client, made.until(made.submit(request_id="mine")))
        server.stop(0)


def test_outputs_are_streamed_by_the_names_that_the_job_has(served: Served) -> None:
    """Whole, also where one is longer than a chunk and lies in a folder; by id and by name."""
    assert [output.path for output in served.job.outputs] == ["plain", "sub/zero file"]
    assert served.output("plain") == b"plain"
    assert served.output("sub/zero file") == bytes(200_000)
    assert b"".join(served.client.output(served.job.name, "plain")) == b"plain"


def test_nothing_else_is_given_away(served: Served) -> None:
    """No folder, no file beside the outputs, and no link where an output was."""
    folder = served.made.workspaces.of(served.job.id).output
    (folder / "later").write_text("not of the job")
    secret = folder.parent / "provenance.json"
    for path in ("", ".", "sub", "later", "../provenance.json", "sub/../plain", str(secret)):
        with pytest.raises(NotFoundError, match="has no output of that path"):
            served.output(path)
    (folder / "plain").unlink()
    (folder / "plain").symlink_to(secret)
    with pytest.raises(NotFoundError, match="has no output of that path"):
        served.output("plain")
    (folder / "sub").rename(folder.parent / "sub")
    (folder / "sub").symlink_to(folder.parent / "sub")
    with pytest.raises(NotFoundError, match="has no output of that path"):
        served.output("sub/zero file")


def test_another_project_s_outputs_are_not_there(served: Served) -> None:
    """Whoever may look into one project is told of no other's, also by a request id."""
    with Client(served.address, served.made.known_as("trial", Role.ADMIN, "trial")) as client:
        with pytest.raises(NotFoundError, match="no job has the id"):
            list(client.output(served.job.id, "plain"))
        with pytest.raises(NotFoundError, match="no job was made by the request id 'mine'"):
            client.job(request_id="mine")
    assert served.client.job(request_id="mine").id == served.job.id


def test_outputs_that_are_not_there_are_told_as_logs_are(served: Served) -> None:
    """Of a job that did not finish there are none; of others it is said when they went."""
    failed = served.made.until(served.made.submit("fail"))
    with pytest.raises(WrongStateError, match="is failed: only a job that has finished has out"):
        list(served.client.output(failed.id, "plain"))
    with served.made.ledger.write() as tx:
        jobs.note_reclaimed(tx, "outputs", [served.job.id], served.made.clock.now())
    with pytest.raises(WrongStateError, match="were reclaimed at 2026-01-02 03:04 UTC: platform"):
        served.output("plain")
