"""`doctor`: each fault is really made, found by its name, and the cure that is told cures it."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicom_adapter.cli.machine import DESCRIPTORS_BESIDE, _is_adapter
from tests.certificates import SERVER, Authority
from tests.cli.conftest import Command, Work
from tests.cli.shell import PROGRAM, Answer, as_nobody, serving
from tests.receive.support import EXPLICIT, IMPLICIT, MR, VERIFICATION, free_port
from tests.support import (
    CONFIG,
    PATIENCE,
    ManualClock,
    association,
    make_instance,
    running,
    send,
)

STRICT = CONFIG.replace("port: 0", "port: 0, reject_unknown_sources: true") + (
    "sources: {CT1: {ae_title: CT1, host: 10.1.2.3}}\n"
)


def examined(cli: Command, folder: Path, text: str = CONFIG, *words: str) -> Answer:
    """Run the doctor over a configuration."""
    (folder / "dicom-adapter.yaml").write_text(text, "utf-8")
    return cli("doctor", "--json", *words, folder=folder)


def findings(answer: Answer, subject: str) -> list[dict[str, Any]]:
    """Return what was found of one subject."""
    return [row for row in answer.rows if row["subject"] == subject]


def the(answer: Answer, subject: str, verdict: str) -> dict[str, Any]:
    """Return the one finding of a subject that has a verdict."""
    (found,) = [row for row in findings(answer, subject) if row["verdict"] == verdict]
    return found


def test_not_running(cli: Command, tmp_path: Path) -> None:
    """Before the first start nothing is bad: it says how to start, and exits 0."""
    answer = examined(cli, tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert the(answer, "service", "look")["cure"] == "start it: dicom-adapter serve"
    assert the(answer, "configuration", "good")
    assert the(answer, "storage", "good")
    assert not (tmp_path / "data").exists()


def test_running(cli: Command, work: Work) -> None:
    """A running service is asked by C-ECHO on every port; what needs a person is passed on."""
    answer = cli("doctor", "--json", folder=work.folder)
    assert the(answer, "service", "good")
    assert the(answer, "port", "good")["found"] == f"{work.running.port} answers"
    assert the(answer, "address", "look")["cure"].startswith("set dicom.host to 0.0.0.0")
    assert any("quarantine" in row["found"] for row in findings(answer, "attention"))


def test_for_people(cli: Command, tmp_path: Path) -> None:
    """Each finding is a line with its verdict, and the cure stands below it."""
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    lines = cli("doctor").out.splitlines()
    assert lines[0] == "good  configuration  dicom-adapter.yaml is valid"
    below = lines[lines.index("look  service        is not running") + 1]
    assert below.strip() == "-> start it: dicom-adapter serve"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CONFIG.replace("port: 0", "port: {port}"), "dicom.port"),
        (CONFIG.replace("TEST: {", "TEST: {port: {port}, "), "ae_titles.TEST.port"),
        (CONFIG.replace("listen: null", 'listen: "127.0.0.1:{port}"'), "grpc.listen"),
    ],
)
def test_port_taken(cli: Command, tmp_path: Path, text: str, key: str) -> None:
    """A port that another process has is told with that process and the key to change."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        answer = examined(cli, tmp_path, text.replace("{port}", str(port)))
    found = the(answer, "port", "bad")
    assert answer.code == 1
    assert answer.err == "dicom-adapter: 1 thing keeps senders from getting through\n"
    assert f"{port} ({key}) is taken by " in found["found"]
    assert f"(pid {os.getpid()})" in found["found"]
    assert found["cure"] == f"stop that, or choose another {key}"


def test_port_of_an_adapter(cli: Command, tmp_path: Path) -> None:
    """In the wrong folder nobody is told to stop the live service: it is asked for by its data."""
    with serving(tmp_path) as served:
        (tmp_path / "wrong").mkdir()
        text = CONFIG.replace("port: 0", f"port: {served.dicom[0]}")
        answer = examined(cli, tmp_path / "wrong", text)
    found = the(answer, "port", "bad")
    assert f"a dicom-adapter (pid {served.process.pid}) runs with another" in found["found"]
    assert found["cure"].startswith("give its --config or --data")
    assert "stop" not in answer.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/usr/bin/python3", "/opt/bin/dicom-adapter", "serve"], True),
        (["python", "-m", "dicom_adapter", "serve", "--data", "x"], True),
        (["python", "-m", "pytest", "/src/dicom-adapter/tests", "-k", "serve"], False),
        (["/src/dicom-adapter/.venv/bin/python", "-m", "http.server"], False),
        (["dicom-adapter", "send", "."], False),
    ],
)
def test_adapter_by_its_command_line(words: list[str], expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A process is an adapter by its program and its command, not by the folder that it is in."""
    assert _is_adapter(words) is expected


def test_address_of_another_machine(cli: Command, tmp_path: Path) -> None:
    """A dicom.host that is no address of this machine is told, with the cure."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    text = CONFIG.replace("host: 127.0.0.1, port: 0", f"host: 192.0.2.1, port: {port}")
    answer = examined(cli, tmp_path, text)
    assert answer.code == 1
    assert "use an address of this machine" in the(answer, "port", "bad")["cure"]


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 104,
    reason="every user may open port 104 here",
)
def test_privileged_port(shared: Path) -> None:
    """DICOM's own port 104 is for root: others are told what to do about it."""
    (shared / "dicom-adapter.yaml").write_text(CONFIG.replace("port: 0", "port: 104"), "utf-8")
    answer = as_nobody("doctor", "--json", folder=shared)
    found = the(answer, "port", "bad")
    assert answer.code == 1
    assert "104 (dicom.port) may not be opened by uid" in found["found"]
    assert "CAP_NET_BIND_SERVICE" in found["cure"]


@pytest.mark.parametrize("existing", [True, False])
def test_no_rights(shared: Path, existing: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A data folder that may not be written, or not be made, is told with who would need it."""
    folder = shared / "locked"
    (folder / "data").mkdir(parents=True) if existing else folder.mkdir()
    for path in [*folder.glob("data"), folder]:
        path.chmod(0o500)
    answer = as_nobody("doctor", "--json", "--data", "locked/data", folder=shared)
    found = the(answer, "storage", "bad")
    assert answer.code == 1
    assert "cannot be written: Permission denied" in found["found"]
    assert "give the folder to the user that runs the service (uid" in found["cure"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_service_of_another_user(shared: Path) -> None:
    """Whoever may not ask the running service is told whose it is, not that it does not run."""
    with running(shared, CONFIG):
        answer = as_nobody("doctor", "--json", folder=shared)
        assert "belongs to another user" in the(answer, "service", "look")["found"]
        answer = as_nobody("status", folder=shared)
        assert answer.code == 1
        assert "Permission denied: run this as the user that runs the service" in answer.err


def test_no_space(cli: Command, tmp_path: Path) -> None:
    """Less room than storage.reserve is told with what senders are answered."""
    answer = examined(cli, tmp_path, CONFIG.replace("reserve: 0", "reserve: 8000TiB"))
    found = the(answer, "storage", "bad")
    assert answer.code == 1
    assert "C-STORE is answered 0xA700" in found["found"]
    assert "lower storage.reserve (8000.0 TiB)" in found["cure"]


def test_above_the_watermark(cli: Command, tmp_path: Path) -> None:
    """A disk above the watermark keeps nobody out: something to look at, exit 0."""
    answer = examined(cli, tmp_path, CONFIG.replace("watermark: 100%", "watermark: 0.001%"))
    assert answer.code == 0
    assert "raise storage.watermark" in the(answer, "storage", "look")["cure"]


def test_descriptors(tmp_path: Path) -> None:
    """A hard limit of open files that is too low for the associations is told with both numbers."""
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    low = DESCRIPTORS_BESIDE + 100

    ended = subprocess.run(
        ["sh", "-c", f'ulimit -n {low}; exec "$@"', "sh", *PROGRAM, "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    answer = Answer(ended.returncode, ended.stdout, ended.stderr)
    found = the(answer, "descriptors", "bad")
    assert answer.code == 1
    assert f"at most {low} open files, but 200 associations need 800" in found["found"]
    assert "LimitNOFILE" in found["cure"]


def test_clock_set_back(cli: Command, tmp_path: Path) -> None:
    """A clock behind what the ledger has seen is told: groups would wait until it has caught up."""
    clock = ManualClock()
    clock.advance(100 * 365 * 86_400)
    with running(tmp_path, CONFIG, clock) as service:
        assert send(service.port, [make_instance()]) == [0]
        service.grouped(1)
        clock.advance(10)
        service.ended_jobs(1)
    answer = examined(cli, tmp_path)
    found = the(answer, "clock", "bad")
    assert answer.code == 1
    assert "2125-" in found["found"]
    assert "it was set back" in found["found"]
    assert "NTP" in found["cure"]


def test_platform_that_does_not_answer(cli: Command, tmp_path: Path) -> None:
    """A platform elsewhere that does not answer is told; one that does, with its pipelines."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        closed = f"127.0.0.1:{holder.getsockname()[1]}"
    answer = examined(cli, tmp_path, remote(closed))
    found = the(answer, "platform", "bad")
    assert answer.code == 1
    assert found["found"] == f"{closed} does not answer: Connection refused"
    assert "submissions wait meanwhile" in found["cure"]


def test_platform_that_answers(cli: Command, tmp_path: Path, work: Work) -> None:
    """A platform elsewhere that answers is told with its pipelines."""
    (address,) = work.running.ready.grpc
    (tmp_path / "token").write_text(work.running.token())
    answer = examined(cli, tmp_path, remote(address, ", token: token"))
    assert the(answer, "platform", "good")["found"] == (
        f"{address} answers; its pipelines: copy, fail"
    )


def test_a_service_elsewhere_is_asked_with_the_token_of_the_environment(
    cli: Command, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by every other command."""
    (address,) = work.running.ready.grpc
    monkeypatch.setenv("DICOM_ADAPTER_TOKEN", work.running.token())
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    answer = cli("doctor", "--json", "--server", address)
    assert the(answer, "service", "good")["found"].startswith("runs, version ")


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/", "data"])
def test_a_command_that_is_not_there(cli: Command, tmp_path: Path, program: str) -> None:
    """It keeps no sender out, but is to be looked at: its jobs fail."""
    (tmp_path / "data").write_text("x", "utf-8")
    named = str(tmp_path / program) if program == "data" else program
    text = CONFIG.replace("pipelines:\n", f"pipelines:\n  gone: {{command: [{named}]}}\n")
    answer = examined(cli, tmp_path, text)
    found = the(answer, "pipeline gone", "look")
    assert found["found"] == f"no program of this machine is {named}, so its jobs will fail"
    assert "pipelines.gone.command" in found["cure"]


def test_executors_are_asked(cli: Command, tmp_path: Path, work: Work) -> None:
    """One that does not answer, or has no such pipeline, keeps no sender out, and is told."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        closed = f"127.0.0.1:{holder.getsockname()[1]}"
    (address,) = work.running.ready.grpc
    (tmp_path / "token").write_text(work.running.token())
    text = (
        CONFIG.partition("pipelines:")[0]
        + f"""
executors: {{gone: {{address: "{closed}"}}, there: {{address: "{address}", token: token}}}}
platform: {{executor: there}}
pipelines: {{a: {{executor: gone}}, b: {{remote_pipeline: copy}}, c: {{}}}}
ae_titles: {{FAR: {{settings: {{pipeline-a: a}}}}}}
"""
    )
    answer = examined(cli, tmp_path, text)
    gone = the(answer, "executor gone", "look")
    assert gone["found"] == f"{closed} does not answer: Connection refused"
    assert gone["cure"] == (
        "start it, or correct executors.gone; jobs that it is to run wait meanwhile"
    )
    there = the(answer, "executor there", "good")
    assert there["found"] == f"{address} answers; its pipelines: copy, fail"
    lacks = the(answer, "executor there", "look")
    assert lacks["found"] == f"{address} has no pipeline c, which the pipeline c runs"
    assert "pipelines.c.remote_pipeline" in lacks["cure"]


def remote(address: str, more: str = "") -> str:
    """Return the configuration of an adapter whose platform is elsewhere."""
    return CONFIG.partition("pipelines:")[0] + (
        f'platform: {{address: "{address}"{more}}}\n'
        "ae_titles: {FAR: {settings: {pipeline-a: copy}}}\n"
    )


@pytest.mark.parametrize(
    ("called", "cure"),
    [
        ("test", "correct the called AE title at the sender to TEST; upper and lower case differ"),
        ("TESTT", "correct the called AE title at the sender to TEST"),
        ("ARCHIVE", "correct the called AE title at the sender (there is TEST, SECOND)"),
        ("SECOND", "correct the port at the sender: SECOND listens on"),
    ],
)
def test_wrong_called_ae_title(cli: Command, tmp_path: Path, called: str, cure: str) -> None:
    """A sender that calls what is not here is told with its values, and what it should call."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    text = f"{CONFIG}  SECOND: {{port: {port}, settings: {{pipeline-copy: copy}}}}\n"
    with running(tmp_path, text) as service:
        with association(service.port, called, calling="CT9") as opened:
            assert opened.is_rejected
        answer = cli("doctor", "--json")
    found = the(answer, "sender", "bad")
    assert answer.code == 1
    assert f"'CT9' at 127.0.0.1 called '{called}' and was rejected 1 time" in found["found"]
    assert found["cure"].startswith(cure)


@pytest.mark.parametrize("calling", ["CT1", "CT 2", "NO"])
def test_unknown_source(cli: Command, tmp_path: Path, calling: str) -> None:
    """Where no source matches, the line that is told, put under sources, lets the sender in."""
    with running(tmp_path, STRICT) as service:
        with association(service.port, calling=calling) as opened:
            assert opened.is_rejected
        answer = cli("doctor", "--json")
    found = the(answer, "sender", "bad")
    assert answer.code == 1
    assert f"'{calling}' at 127.0.0.1 called 'TEST'" in found["found"]
    intro, _, line = found["cure"].partition(": ")
    assert intro == "if it may send, add under sources"
    values = yaml.safe_load(STRICT)
    values["sources"].update(yaml.safe_load(line))
    with running(tmp_path, yaml.safe_dump(values)) as service:
        with association(service.port, calling=calling) as opened:
            assert opened.is_established
        answer = cli("doctor", "--json")
    # Its own look at the port is no sender that is kept out.
    assert answer.code == 0
    assert findings(answer, "sender") == []


def test_refused_instances(cli: Command, tmp_path: Path) -> None:
    """Refused instances are told by their kind, with no word of theirs: look, and exit 0."""
    with running(tmp_path) as service:
        bad = [make_instance(StudyInstanceUID=None, SOPInstanceUID=f"1.2.77.{n}") for n in (1, 2)]
        assert send(service.port, bad) == [0xC000, 0xC000]
        answer = cli("doctor", "--json")
        status = cli("status").out
    found = the(answer, "sender", "look")
    why = "instance refused with 0xC000: the data set has no StudyInstanceUID"
    assert answer.code == 0
    assert "called 'TEST' and 2 instances were refused, last" in found["found"]
    assert found["found"].endswith(why)
    assert found["cure"] == "the sender keeps it: correct it there, and send it again"
    assert f"SCU at 127.0.0.1 calling TEST: {why} (2 times, last" in status
    assert "1.2.77" not in answer.out + status


@pytest.mark.parametrize(
    ("keys", "sop_class", "key"),
    [
        (", accepted_sop_classes: [CTImageStorage]", MR, "ae_titles.TEST.accepted_sop_classes"),
        ("", "1.2.3.4", "dicom.private_sop_classes"),
    ],
)
def test_nothing_accepted(
    cli: Command, tmp_path: Path, keys: str, sop_class: str, key: str
) -> None:
    """A sender that is let in, but may store none of what it proposed, is told with the key."""
    text = CONFIG.replace("{pipeline-copy: copy}", "{pipeline-copy: copy}" + keys)
    contexts = [(sop_class, EXPLICIT), (VERIFICATION, IMPLICIT)]
    with running(tmp_path, text) as service:
        with association(service.port, contexts=contexts) as opened:
            assert opened.is_established
        answer = cli("doctor", "--json")
    found = the(answer, "sender", "bad")
    assert answer.code == 1
    assert "called 'TEST' and could store nothing 1 time" in found["found"]
    assert "no proposed storage SOP class is accepted: see " in found["found"]
    assert found["cure"].partition(" to ")[2] == key


def test_old_rejection(cli: Command, tmp_path: Path) -> None:
    """A rejection that was the last of its kind an hour ago is history: look, and exit 0."""
    with running(tmp_path, CONFIG, ManualClock()) as service:
        with association(service.port, "WRONG") as opened:
            assert opened.is_rejected
        answer = cli("doctor", "--json")
    assert answer.code == 0
    assert "'WRONG'" in the(answer, "sender", "look")["found"]


def test_changed_configuration(cli: Command, tmp_path: Path) -> None:
    """A service that listens elsewhere than its file says now was not restarted since."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    with running(tmp_path):
        answer = examined(cli, tmp_path, CONFIG.replace("port: 0", f"port: {port}"))
    assert answer.code == 1
    assert the(answer, "port", "bad")["cure"] == "restart the service"


def test_tls(cli: Command, tmp_path: Path) -> None:
    """Its port is looked at, told to senders, and to one that has not the certificate it needs."""
    authority = Authority(tmp_path)
    authority.issue("service", usage=(SERVER,))
    port = free_port()
    tls = f"tls: {{port: {port}, certificate: service.pem, key: service.key, ca: ca.pem}}"
    text = STRICT.replace("port: 0,", f"port: 0, {tls},")
    text = text.replace("10.1.2.3}", "127.0.0.1, certificate: ct1.hospital.example}")
    assert f"{port} (dicom.tls.port) is free" in str(examined(cli, tmp_path, text).rows)
    with running(tmp_path, text) as service:
        with association(service.port, calling="CT1") as opened:
            assert opened.is_rejected
        answer = cli("doctor", "--json", folder=tmp_path)
    answers = [row["found"] for row in findings(answer, "port")]
    assert answers == [f"{service.port} answers", f"{port} answers"]
    assert the(answer, "sender", "bad")["cure"].startswith("if it may send, have it call by TLS")
