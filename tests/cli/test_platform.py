"""`platform`: pause, drain and resume as a user types them."""

from pathlib import Path

from dicom_adapter.addresses import socket_address
from tests.cli.conftest import Command
from tests.cli.shell import as_process, serving
from tests.cli.test_jobs import LONG
from tests.cli.test_shown import submit
from tests.support import running


def test_platform_in_order(tmp_path: Path) -> None:
    """A pause is shown where one looks, lasts over a restart, and ends with `resume`."""
    with serving(tmp_path):
        shown = as_process("platform", "show", folder=tmp_path)
        assert shown.out.splitlines() == ["paused   -", "running  0", "waiting  0"]
        paused = as_process("platform", "pause", "--reason", "a new disk", folder=tmp_path)
        assert paused.out == "no more jobs are started; 0 jobs run, 0 jobs wait\n"
    with serving(tmp_path):
        status = as_process("status", folder=tmp_path)
        assert "! the platform was paused by local at " in status.out
        assert "UTC: a new disk: no job is started until `platform resume`" in status.out
        drained = as_process("platform", "drain", folder=tmp_path)
        assert (drained.code, drained.err) == (0, "")
        resumed = as_process("platform", "resume", folder=tmp_path)
        assert resumed.out == "jobs are started; 0 jobs run, 0 jobs wait\n"
        assert "paused" not in as_process("status", folder=tmp_path).out


def test_drain_waits_until_nothing_runs(cli: Command, tmp_path: Path) -> None:
    """It says how many run still, and gives up at its timeout with exit code 1."""
    with running(tmp_path, LONG) as service:
        submit(socket_address(service.service.settings), tmp_path, 2)
        service.wait_for(lambda: service.jobs()[0].state == "processing")
        given_up = cli("platform", "drain", "--timeout", "0")
        assert (given_up.code, given_up.out) == (1, "")
        assert given_up.err == "1 job runs, 1 job waits\n"
        (shown,) = cli("jobs", "show", "job-1", "--json").rows
        assert shown["waiting"]["before"] == 0
        assert "the platform was paused by local" in shown["waiting"]["why"]
        assert cli("jobs", "cancel", "job-0").code == 0
        drained = cli("platform", "drain", "--timeout", "10")
        assert drained.out == "no more jobs are started; 0 jobs run, 1 job waits\n"
        assert cli("platform", "resume").out.startswith("jobs are started")
        service.wait_for(lambda: service.jobs()[1].state == "processing")
