"""What people do to jobs from the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.service import socket_address
from tests.cli.conftest import Command
from tests.cli.test_shown import submit
from tests.support import Running, running

#: A job runs until it is ended.
LONG = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
platform: {max_jobs: 1}
pipelines: {copy: {command: [sh, -c, "sleep 1000"], resources: {memory: 1MiB}}}
ae_titles: {TEST: {settings: {pipeline-copy: copy}}}
"""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Running]:
    """A service that runs `job-0`, while `job-1` and `job-2` wait."""
    with running(tmp_path, LONG) as service:
        submit(socket_address(service.service.settings), tmp_path, 3)
        service.wait_for(lambda: service.jobs()[0].state == "processing")
        yield service


def test_cancel(cli: Command, busy: Running) -> None:
    """Every job is told with what has become of it, and the one that runs is ended."""
    answer = cli("jobs", "cancel", "job-0", "job-1", "--reason", "wrong pipeline")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "job-0 is cancelling\njob-1 is cancelled\n"
    first = busy.wait_for(lambda: [job for job in busy.jobs()[:1] if job.state == "cancelled"])
    assert first[0].cancelled_from == "processing"
    (shown,) = cli("jobs", "show", "job-1", "--json").rows
    assert (shown["state"], shown["cancelled_from"]) == ("cancelled", "in_queue")
    assert cli("jobs", "show", "job-2", "--json").rows[0]["cancelled_from"] is None


def test_cancel_what_cannot_be_cancelled(cli: Command, busy: Running) -> None:
    """Each that is refused is told with its reason, and keeps no other from being cancelled."""
    answer = cli("jobs", "cancel", "--only-if-queued", "none", "job-0", "job-2")
    assert answer.code == 1
    assert answer.out == "job-2 is cancelled\n"
    missing, started = answer.err.splitlines()
    assert missing == "dicom-adapter: no job has the id or name 'none'"
    assert started.startswith("dicom-adapter: the job is processing, and only one in_queue was to")
    again = cli("jobs", "cancel", "job-2")
    assert (again.code, again.out) == (1, "")
    assert "cannot cancel a job that is cancelled: it must be in_queue or processing" in again.err
    assert busy.jobs()[0].state == "processing"
