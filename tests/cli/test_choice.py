"""Decisions about all jobs that pass a filter: shown first, and asked about."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.lifecycle import JobState
from tests.cli.conftest import Command
from tests.cli.shell import on_terminal
from tests.cli.test_jobs import LONG
from tests.cli.test_shown import submit
from tests.support import Running, running


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Running]:
    """A service that runs `job-0`, while `job-1` and `job-2` wait."""
    with running(tmp_path, LONG) as service:
        submit(socket_address(service.service.settings), tmp_path, 3)
        service.wait_for(lambda: service.jobs()[0].state == "processing")
        yield service


def states(service: Running) -> list[str]:
    """Return the states of the jobs, the oldest first."""
    return [str(job.state) for job in service.jobs()]


WAITING = ["processing", "in_queue", "in_queue"]


def test_a_filter_is_shown_and_asked_about(cli: Command, busy: Running, tmp_path: Path) -> None:
    """Nothing is done where nobody answers, or the answer is no; and all of it after a yes."""
    words = ("jobs", "cancel", "--state", "in_queue", "--pipeline", "copy")
    shown = "job-1, in_queue, would be cancelled\njob-2, in_queue, would be cancelled\n"
    nobody = cli(*words)
    assert (nobody.code, nobody.out) == (1, shown)
    assert nobody.err == (
        "dicom-adapter: 2 jobs would be cancelled, and nobody is there to ask: nothing was "
        "changed; --yes says that it is meant\n"
    )
    assert "Cancel 2 jobs? [y/N]" in on_terminal(*words, folder=tmp_path, typed="n\n")[1]
    assert states(busy) == WAITING
    code, answer = on_terminal(*words, folder=tmp_path, typed="y\n")
    assert code == 0
    assert "job-1 is cancelled" in answer
    assert "job-2 is cancelled" in answer
    assert states(busy) == ["processing", "cancelled", "cancelled"]


def test_what_is_in_no_state_for_it_is_left_out(cli: Command, busy: Running) -> None:
    """A filter means the jobs that can be: retrying, without a state, those that failed."""
    assert cli("jobs", "cancel", "job-1", "job-2").code == 0
    assert cli("jobs", "retry", "--pipeline", "copy", "--yes").out == "No job matches.\n"
    again = cli("jobs", "retry", "--state", "cancelled", "--ae-title", "", "--dry-run")
    assert again.out == "job-1 would run again\njob-2 would run again\n"
    deleted = cli("jobs", "delete", "--pipeline", "copy", "--yes")
    assert deleted.out.splitlines() == ["job-1 is deleted", "job-2 is deleted"]
    assert states(busy) == ["processing"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "jobs cancel",
            "name jobs, or choose them by --state, --pipeline, --ae-title and --project",
        ),
        ("jobs cancel job-0 --pipeline copy", "one of the two"),
        ("jobs retry --state in_queue", "cannot retry jobs that are in_queue: they must be failed"),
    ],
)
def test_a_choice_is_names_or_a_filter(cli: Command, busy: Running, words: str, told: str) -> None:
    """Both, neither, and a state in which it cannot be done are wrong words."""
    answer = cli(*words.split())
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.err
    assert states(busy) == WAITING


#: A job fails while there is a file `bad`, else it runs while there is a file `hold`.
MANY = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
platform: {max_jobs: 2}
pipelines:
  copy:
    command: [sh, -c, "[ ! -e $0/bad ] || exit 1; while [ -e $0/hold ]; do sleep 0.01; done", HERE]
    resources: {memory: 1MiB}
    cancel: drain
"""
NAMES = {str(state): f"is-{state.replace('_', '-')}" for state in JobState}


@pytest.fixture
def many(cli: Command, tmp_path: Path) -> Iterator[Running]:
    """A service with one job in each state, named after that."""
    with running(tmp_path, MANY.replace("HERE", str(tmp_path))) as service:

        def until(name: str, state: str) -> None:
            service.wait_for(
                lambda: [job for job in service.jobs() if (job.name, job.state) == (name, state)]
            )

        def made(state: str, reached: str) -> None:
            assert cli("jobs", "rerun", "job-0", "--name", NAMES[state]).code == 0
            until(NAMES[state], reached)

        submit(socket_address(service.service.settings), tmp_path, 1)
        until("job-0", "finished")
        made("finished", "finished")
        made("invalidated", "finished")
        cli("jobs", "invalidate", NAMES["invalidated"], "--reason", "wrong plug-in")
        (tmp_path / "bad").touch()
        made("failed", "failed")
        (tmp_path / "bad").unlink()
        (tmp_path / "hold").touch()
        made("cancelling", "processing")
        made("processing", "processing")
        made("cancelled", "in_queue")
        made("in_queue", "in_queue")
        cli("jobs", "cancel", NAMES["cancelling"], NAMES["cancelled"])
        cli("jobs", "delete", "job-0", "--yes")
        yield service
        (tmp_path / "hold").unlink()
        service.ended_jobs(len(service.jobs()))


@pytest.mark.usefixtures("many")
def test_s48_r15_a_list_hides_no_state(cli: Command) -> None:
    """Without a filter jobs of every state are listed, and each state can be asked for."""
    rows = cli("jobs", "list", "--json").rows
    assert {row["name"]: row["state"] for row in rows} == {NAMES[s]: s for s in NAMES}
    for state, name in NAMES.items():
        assert [row["name"] for row in cli("jobs", "list", "--json", "--state", state).rows] == [
            name
        ]


def test_r10_all_that_has_ended_is_deleted_by_its_states(cli: Command, many: Running) -> None:
    """Of two states that are named, jobs of both are deleted, and no others."""
    words = ("jobs", "delete", "--state", "failed", "--state", "finished", "--yes")
    answer = cli(*words)
    assert (answer.code, answer.err) == (0, "")
    assert set(answer.out.splitlines()) == {"is-failed is deleted", "is-finished is deleted"}
    assert {job.name for job in many.jobs()} == set(NAMES.values()) - {"is-failed", "is-finished"}
