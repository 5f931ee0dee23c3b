"""What people do to jobs from the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.service import socket_address
from tests.cli.conftest import Command, Work
from tests.cli.shell import on_terminal
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


def test_invalidate(cli: Command, work: Work) -> None:
    """It needs a reason, which the history tells; what is not finished is refused."""
    listed = ["jobs", "list", "--json", "--pipeline"]
    (finished,) = cli(*listed, "copy", folder=work.folder).rows
    (failed,) = cli(*listed, "fail", folder=work.folder).rows
    words = ["jobs", "invalidate", finished["name"], failed["name"]]
    answer = cli(*words, folder=work.folder)
    assert (answer.code, answer.out) == (2, "")
    assert "Missing option '--reason'" in answer.err
    answer = cli(*words, "--reason", "wrong plug-in", folder=work.folder)
    assert (answer.code, answer.out) == (1, f"{finished['name']} is invalidated\n")
    assert "cannot invalidate a job that is failed: it must be finished" in answer.err
    (shown,) = cli("jobs", "show", finished["name"], "--json", folder=work.folder).rows
    move = shown["history"][-1]
    assert (move["action"], move["actor"], move["reason"]) == (
        "invalidate",
        "local",
        "wrong plug-in",
    )
    told = cli("jobs", "show", finished["name"], folder=work.folder).out
    assert "wrong plug-in" in told


def test_delete(cli: Command, busy: Running, tmp_path: Path) -> None:
    """Nothing is deleted unasked, nor what has not ended; the rest is gone."""
    cli("jobs", "cancel", "job-1", "job-2")
    answer = cli("jobs", "delete", "job-1", "job-0")
    assert (answer.code, answer.out) == (1, "")
    assert "2 jobs, with outputs and logs would be deleted for good" in answer.err
    code, shown = on_terminal("jobs", "delete", "job-1", folder=tmp_path, typed="n\n")
    assert (code, len(busy.jobs())) == (1, 3)
    assert "Delete 1 job, with outputs and logs for good?" in shown
    answer = cli("jobs", "delete", "job-1", "job-0", "--yes")
    assert (answer.code, answer.out) == (1, "job-1 is deleted\n")
    assert "cannot delete a job that is processing" in answer.err
    code, shown = on_terminal("jobs", "delete", "job-2", folder=tmp_path, typed="y\n")
    assert (code, [job.name for job in busy.jobs()]) == (0, ["job-0"])
    assert "no job has the id or name 'job-2'" in cli("jobs", "show", "job-2").err
