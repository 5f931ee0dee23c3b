"""What is listed and shown: JSON Lines for programs, tables for people."""

import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.model import InputFile, JobInput, JobRequest, Priority
from dicom_adapter.rpc.client import Client
from tests.cli.conftest import RED, Command, Work
from tests.cli.shell import PROGRAM, on_terminal, serving, start
from tests.support import CONFIG, PATIENCE, command, make_instance, running, send

JOB_KEYS = {
    "id", "name", "project", "pipeline", "pipeline_version", "state", "reason", "priority",
    "ae_title", "instances", "created_at", "started_at", "finished_at", "arguments", "items",
    "steps", "resources", "attempts", "outputs", "error",
}  # fmt: skip


def test_job_as_json(cli: Command, work: Work) -> None:
    """`jobs show --json` has every key of the contract, each with a value of its kind."""
    (name,) = [
        row["name"]
        for row in cli("jobs", "list", "--json", "--pipeline", "copy", folder=work.folder).rows
    ]
    (job,) = cli("jobs", "show", name, "--json", folder=work.folder).rows
    assert job.keys() >= JOB_KEYS
    assert job["state"] == "finished"
    assert job["priority"] == "normal"
    assert job["ae_title"] == "TEST"
    assert job["instances"] == 2
    assert type(job["instances"]) is int
    assert job["arguments"] == {}
    (item,) = job["items"]
    assert item.keys() >= {"id", "state", "inputs"}
    (step,) = job["steps"]
    assert step == {"name": "copy", "state": "done", "progress": 1.0}
    assert job["resources"].keys() == {"requested", "used"}
    assert job["resources"]["used"].keys() == {"cpu_seconds", "max_rss_bytes", "wall_seconds"}
    assert len(job["outputs"]) == 2
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    by_id = cli("jobs", "show", job["id"], "--json", folder=work.folder)
    assert by_id.rows == [job]


def test_provenance(cli: Command, work: Work) -> None:
    """A finished job is shown with all of its record as JSON, with the file's path to people."""
    rows = cli("jobs", "list", "--json", folder=work.folder).rows
    names = {row["pipeline"]: row["name"] for row in rows}
    (shown,) = cli("jobs", "show", names["copy"], "--json", folder=work.folder).rows
    path = Path(shown["provenance_file"])
    assert path == Path(shown["output_folder"]).parent / "provenance.json"
    assert shown["provenance"] == json.loads(path.read_text("utf-8"))
    assert shown["provenance"]["outputs"] == shown["outputs"]
    for time in ("created_at", "started_at", "finished_at"):
        assert shown["provenance"][time] == shown[time]
    assert str(path) in cli("jobs", "show", names["copy"], folder=work.folder).out
    (failed,) = cli("jobs", "show", names["fail"], "--json", folder=work.folder).rows
    assert (failed["provenance_file"], failed["provenance"]) == ("", None)


def test_a_row_equals_what_show_prints(cli: Command, work: Work) -> None:
    """A row of a list is in what `show` prints, which has a job's history besides."""
    for kind, key in (("jobs", "name"), ("pipelines", "name"), ("quarantine", "id")):
        rows = cli(kind, "list", "--json", folder=work.folder).rows
        assert rows
        for row in rows:
            (shown,) = cli(kind, "show", row[key], "--json", folder=work.folder).rows
            assert ("history" in shown) == (kind == "jobs")
            assert {name: shown[name] for name in row} == row


def test_filters(cli: Command, work: Work) -> None:
    """Jobs are chosen by state, pipeline and AE title, and at most --limit are listed."""
    listed = ["jobs", "list", "--json"]
    everything = cli(*listed, folder=work.folder).rows
    assert {row["pipeline"] for row in everything} == {"copy", "fail"}
    for words, expected in (
        (["--state", "failed"], {"fail"}),
        (["--state", "failed", "--state", "finished"], {"copy", "fail"}),
        (["--state", "in_queue"], set()),
        (["--pipeline", "copy"], {"copy"}),
        (["--ae-title", "NAMES"], set()),
    ):
        rows = cli(*listed, *words, folder=work.folder).rows
        assert {row["pipeline"] for row in rows} == expected, words
    asked = ["jobs", "list", "--state", "in_queue"]
    assert cli(*asked, folder=work.folder).out == "No job matches.\n"
    assert cli(*listed, "--limit", "1", folder=work.folder).rows == everything[:1]
    assert len(cli("groups", "list", "--json", "--limit", "1", folder=work.folder).rows) == 1


def test_more_than_a_page(cli: Command, tmp_path: Path) -> None:
    """All jobs are listed, however many pages they fill, and --limit ends within any page."""
    with running(tmp_path, CONFIG + "platform: {max_jobs: 1}\n") as service:
        address = socket_address(service.service.settings)
        names = submit(address, tmp_path, 205)
        listed = [row["name"] for row in cli("jobs", "list", "--json").rows]
        assert listed == names[::-1]
        assert len(cli("jobs", "list", "--json", "--limit", "202").rows) == 202
        assert len(cli("jobs", "list").out.splitlines()) == 206


def submit(address: str, folder: Path, count: int) -> list[str]:
    """Make jobs of one uploaded instance; return their names, the oldest first."""
    path = folder / "one.dcm"
    make_instance().save_as(path)
    file = InputFile(uuid.uuid4().hex, hashlib.sha256(path.read_bytes()).hexdigest(), "1.2.3.4.5")
    names = []
    with Client(address) as client:
        client.upload(file, path)
        for number in range(count):
            request = JobRequest(
                request_id=uuid.uuid4().hex,
                name=f"job-{number}",
                pipeline="copy",
                priority=Priority.NORMAL,
                ae_title="",
                items=((JobInput("1.2", "1.2.3", "all", (file,)),),),
            )
            client.submit(request)
            names.append(request.name)
    return names


def test_nothing_to_list(cli: Command, work: Work) -> None:
    """An empty list is a sentence for people and no line at all for programs."""
    words = ("submissions", "list")
    assert cli(*words, folder=work.folder).out == "The platform has accepted every submission.\n"
    assert cli(*words, "--json", folder=work.folder).out == ""


@pytest.mark.parametrize("kind", ["jobs", "groups", "quarantine", "pipelines"])
def test_tables_in_a_pipe(cli: Command, work: Work, kind: str) -> None:
    """In a pipe every row is one line, and no id or name in it is cut."""
    rows = cli(kind, "list", "--json", folder=work.folder).rows
    lines = cli(kind, "list", folder=work.folder).out.splitlines()
    assert len(lines) == len(rows) + 1
    for row, line in zip(rows, lines[1:], strict=True):
        assert row["id" if kind in {"groups", "quarantine"} else "name"] in line
        assert line == line.rstrip()


@pytest.mark.parametrize("kind", ["jobs", "groups", "quarantine", "pipelines"])
def test_tables_on_a_terminal(cli: Command, work: Work, kind: str) -> None:
    """On 80 columns no line of a table is broken, and long texts have a line of their own."""
    answer = cli(kind, "list", folder=work.folder, columns=80)
    assert answer.code == 0
    lines = [line for line in answer.out.splitlines() if not line.startswith("    ")]
    assert max(map(len, lines)) <= 80


def test_nothing_reaches_the_terminal(work: Work) -> None:
    """Control characters in what came over the wire are written out, never sent to a terminal."""
    code, shown = on_terminal("groups", "list", folder=work.folder)
    assert code == 0
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}
    assert r"RED\x9b31m^KEY\u202e" in shown
    assert "山田^太郎" in shown


def test_json_keeps_every_character(cli: Command, work: Work) -> None:
    """JSON has the key as it came, written in ASCII, so that a line stays a line everywhere."""
    answer = cli("groups", "list", "--json", folder=work.folder)
    assert {row["key"] for row in answer.rows} == {RED, "山田^太郎"}
    assert answer.out.isascii()


def test_errors_are_escaped(cli: Command, work: Work) -> None:
    """An error that quotes what was typed cannot colour the terminal either."""
    answer = cli("jobs", "show", "\x1b[31mred", folder=work.folder)
    assert answer.code == 1
    assert r"\x1b[31mred" in answer.err
    assert "\x1b" not in answer.err


def test_unknown_job(cli: Command, work: Work) -> None:
    """A job or pipeline that does not exist is one line and exit 1."""
    for words in (["jobs", "show", "x"], ["jobs", "logs", "x"], ["pipelines", "show", "x"]):
        answer = cli(*words, folder=work.folder)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.count("\n") == 1
        assert "'x'" in answer.err


def test_people_read_a_job(cli: Command, work: Work) -> None:
    """`jobs show` tells people sizes with units and times with their zone."""
    (job,) = cli("jobs", "list", "--json", "--state", "failed", folder=work.folder).rows
    out = cli("jobs", "show", job["name"], folder=work.folder).out
    assert f"{job['created_at'][:19].replace('T', ' ')} UTC" in out
    assert "1.0 MiB" in out
    assert "exit_code" in out


def test_logs(cli: Command, work: Work) -> None:
    """`jobs logs` prints what the pipeline has written, as it wrote it."""
    (job,) = cli("jobs", "list", "--json", "--pipeline", "copy", folder=work.folder).rows
    assert cli("jobs", "logs", job["name"], folder=work.folder).out == "copying\n"


def test_following_a_log(tmp_path: Path) -> None:
    """`jobs logs --follow` prints lines as they are written and ends when the job ends."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"echo begun; read line < {fifo}; printf '\\033[31m%s\\n' $line"
    text = CONFIG.replace("""'cp -r "$0"/. "$1"', "{input}", "{output}\"""", json.dumps(script))
    with serving(tmp_path, text) as service:
        (name,) = submit(service.places["grpc"], tmp_path, 1)
        follower = start("jobs", "logs", name, "--follow", folder=tmp_path)
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        assert follower.poll() is None
        fifo.write_text("ended\n")
        out, err = follower.communicate(timeout=PATIENCE)
        assert (follower.returncode, out, err) == (0, "\x1b[31mended\n", "")
        # On a terminal, what a pipeline prints is shown, not obeyed.
        _, shown = on_terminal("jobs", "logs", name, folder=tmp_path)
        assert shown == "begun\n\\x1b[31mended\n"


def test_a_reader_that_goes_away(work: Work) -> None:
    """`| head` ends a command without a word about it."""
    line = f"{' '.join(PROGRAM)} {{}} | head -c 1"
    for words in ("jobs list --json", "groups list", "--help"):
        ended = subprocess.run(
            ["sh", "-c", line.format(words)], cwd=work.folder, capture_output=True, check=False
        )
        assert ended.stderr == b"", words
        assert len(ended.stdout) == 1


def test_output_that_cannot_be_written(work: Work) -> None:
    """A full disk behind `>` is one clear line and exit 1, not silence."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PROGRAM, "jobs", "list"], cwd=work.folder, stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "dicom-adapter: [Errno 28] No space left on device\n"


def test_another_platform(
    cli: Command, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`jobs` and `pipelines` reach the platform where it is another server than the adapter."""
    (address,) = work.running.ready.grpc
    text = CONFIG.partition("pipelines:")[0] + (
        f"platform: {{address: '{address}', token: token}}\n"
        "ae_titles: {FAR: {settings: {pipeline-copy: copy}}}\n"
    )
    (tmp_path / "dicom-adapter.yaml").write_text(text, "utf-8")
    (tmp_path / "token").write_text(work.running.token())
    monkeypatch.setenv("DICOM_ADAPTER_TOKEN", (tmp_path / "token").read_text())
    assert cli("pipelines", "list", "--json").rows
    assert (
        cli("jobs", "list", "--json").rows
        == cli("jobs", "list", "--json", "--server", address).rows
    )


def test_decoded_letters(work: Work) -> None:
    """A terminal that lacks a letter gets it written out, not an error."""
    ended = subprocess.run(
        [*PROGRAM, "groups", "list"], cwd=work.folder, capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert ended.returncode == 0
    assert rb"\u5c71\u7530" in ended.stdout


def test_sent_while_looking(cli: Command, work: Work) -> None:
    """An instance that has just come is in the list at once: nothing is cached."""
    before = len(cli("quarantine", "list", "--json", folder=work.folder).rows)
    assert send(work.running.port, [make_instance(PatientName="")], called="NAMES") == [0]
    work.running.wait_for(
        lambda: len(cli("quarantine", "list", "--json", folder=work.folder).rows) == before + 1
    )
    assert command("quarantine", "list", folder=work.folder).returncode == 0
