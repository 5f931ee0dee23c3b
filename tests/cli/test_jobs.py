"""What people do to jobs from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from tests.cli.conftest import Command
from tests.cli.shell import on_terminal, serving, start
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
    # The one that waits first: it would start as soon as the other has ended.
    answer = cli("jobs", "cancel", "job-1", "job-0", "--reason", "wrong pipeline")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "job-1 is cancelled\njob-0 is cancelling\n"
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
    assert started.startswith("dicom-adapter: job-0: the job is processing, and only one in_queue")
    again = cli("jobs", "cancel", "job-2")
    assert (again.code, again.out) == (1, "")
    assert "cannot cancel a job that is cancelled: it must be in_queue or processing" in again.err
    assert busy.jobs()[0].state == "processing"


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[Running]:
    """A service whose `job-0` is finished; what runs next fails until there is a file `good`."""
    script = f"[ -e {tmp_path}/good ] && echo out > $DICOM_ADAPTER_OUTPUT/out"
    with running(tmp_path, LONG.replace("sleep 1000", script)) as service:
        (tmp_path / "good").touch()
        submit(socket_address(service.service.settings), tmp_path, 1)
        service.ended_jobs(1)
        (tmp_path / "good").unlink()
        yield service


def test_invalidate(cli: Command, ended: Running) -> None:
    """It needs a reason, which the history tells; what is not finished is refused."""
    cli("jobs", "rerun", "job-0", "--name", "failing")
    ended.ended_jobs(2)
    words = ["jobs", "invalidate", "job-0", "failing"]
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert "Missing option '--reason'" in answer.err
    answer = cli(*words, "--reason", "wrong plug-in")
    assert (answer.code, answer.out) == (1, "job-0 is invalidated\n")
    assert "cannot invalidate a job that is failed: it must be finished" in answer.err
    (shown,) = cli("jobs", "show", "job-0", "--json").rows
    move = shown["history"][-1]
    told = (move["action"], move["actor"], move["reason"])
    assert told == ("invalidate", "local", "wrong plug-in")
    assert "wrong plug-in" in cli("jobs", "show", "job-0").out


def test_retry(cli: Command, ended: Running, tmp_path: Path) -> None:
    """Finished work is repeated only when that is said; a dry run says what would run."""
    cli("jobs", "rerun", "job-0", "--name", "failing")
    ended.ended_jobs(2)
    words = ["jobs", "retry", "job-0", "failing"]
    answer = cli(*words, "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "job-0 would run again\nfailing would run again\n"
    (tmp_path / "good").touch()
    answer = cli(*words, "--reason", "mended")
    assert (answer.code, answer.out) == (1, "failing is in the queue again\n")
    assert "job-0 is finished, and its work would be done once more: confirm that" in answer.err
    ended.wait_for(lambda: [job.state for job in ended.jobs()] == ["finished"] * 2)
    assert cli("jobs", "retry", "job-0", "--confirm").code == 0
    ended.wait_for(lambda: ended.jobs()[0].attempts == 2 and ended.jobs()[0].state == "finished")
    (shown,) = cli("jobs", "show", "job-0", "--json").rows
    assert [(one["attempt"], len(one["outputs"])) for one in shown["superseded"]] == [(1, 1)]


@pytest.mark.usefixtures("ended")
def test_rerun(cli: Command) -> None:
    """The new job is told by its name, and knows what it was made of."""
    assert cli("jobs", "rerun", "job-0").out == "job-0-rerun is made\n"
    answer = cli("jobs", "rerun", "job-0", "--name", "job-0")
    assert (answer.code, answer.out) == (1, "")
    assert "name: must be another than the job's own, job-0" in answer.err
    (shown,) = cli("jobs", "show", "job-0-rerun", "--json").rows
    assert shown["rerun_of"] == "job-0"
    answer = cli("jobs", "rerun", "job-0", "--reresolve")
    assert (answer.code, answer.out) == (1, "")
    assert "reresolve: job-0 is of no AE title, so its series cannot grow" in answer.err


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
    assert "dicom-adapter: job-0: cannot delete a job that is processing" in answer.err
    code, shown = on_terminal("jobs", "delete", "job-2", folder=tmp_path, typed="y\n")
    assert (code, [job.name for job in busy.jobs()]) == (0, ["job-0"])
    assert "no job has the id or name 'job-2'" in cli("jobs", "show", "job-2").err


def test_no_event_has_such_a_number(cli: Command, busy: Running) -> None:
    """Behind a number that the API cannot hold there is nothing, and that is no fault."""
    assert busy.jobs()
    answer = cli("audit", "export", "--after", "9" * 20)
    assert (answer.code, answer.out) == (0, "")


def test_watch_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Each line begins with its event's number; with it, a watch after a restart misses none."""
    with serving(tmp_path, LONG):
        submit(f"unix:{tmp_path}/data/run/grpc.sock", tmp_path, 1)
        (line,) = watched(tmp_path, 1, "--after", "1")
        assert line.startswith("2  ")
        assert line.endswith("  job-0  claim  in_queue -> processing  by system\n")
    with serving(tmp_path, LONG):
        told = [json.loads(line) for line in watched(tmp_path, 2, "--after", "2", "--json")]
    assert [(row["number"], row["action"]) for row in told] == [(3, "requeue"), (4, "claim")]
    assert {row["job"]["name"] for row in told} == {"job-0"}


def watched(folder: Path, count: int, *words: str) -> list[str]:
    """Return the first lines that `jobs watch` prints, as it prints them."""
    with start("jobs", "watch", *words, folder=folder) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(count)]
        watching.terminate()
        watching.communicate()
    return lines
