"""`serve` and `check` as a user runs them: processes, signals, ports and files."""

import os
import pty
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import PROGRAM, Served, as_nobody, ended_jobs, refused, serving, start
from tests.support import CONFIG, PATIENCE, association, command, make_instance, send

# What the two ports and the TCP address of gRPC look like in the ready line.
TWO_PORTS = CONFIG.replace("listen: null", 'listen: "127.0.0.1:0"')


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with all that is in a data folder: a finished job, and a group that waits."""
    folder = tmp_path_factory.mktemp("served")
    # A generous umask of the shell must not be the service's.
    before = os.umask(0)
    try:
        with serving(folder) as started:
            assert send(started.dicom[0], [make_instance()]) == [0]
            assert command("groups", "complete", "--all", folder=folder).returncode == 0
            ended_jobs(started.places["grpc"], 1)
            yield started
    finally:
        os.umask(before)


def test_ready_line(served: Served) -> None:
    """One line says where it listens; with grpc.listen null it names the socket, and it is so."""
    assert re.fullmatch(r"ready dicom=127\.0\.0\.1:\d+ grpc=unix:/\S+", served.line)
    assert served.places["grpc"] == f"unix:{served.folder}/data/run/grpc.sock"
    with association(served.dicom[0]) as opened:
        assert opened.is_established


def test_every_file_is_the_services_own(served: Served) -> None:
    """Whatever the shell's umask, no other user can read or enter anything in the data folder."""
    found = [served.folder / "data", *(served.folder / "data").rglob("*")]
    for path in found:
        mode = path.lstat().st_mode
        assert not mode & 0o027, f"{path} has {stat.filemode(mode)}"
        if stat.S_ISDIR(mode):
            assert stat.S_IMODE(mode) == 0o700, path
    (sockets,) = [path for path in found if path.is_socket()]
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o600
    assert any(path.suffix == ".dcm" for path in found)


def test_a_second_service_is_refused(served: Served) -> None:
    """Two services never share a data folder: the second one ends with one clear line."""
    ended = command("serve", folder=served.folder)
    assert ended.returncode == 1
    assert not ended.stdout
    assert ended.stderr.count("\n") == 1
    assert f"{served.folder}/data is in use by another dicom-adapter" in ended.stderr


def test_check_beside_a_service(served: Served) -> None:
    """`check` looks at the configuration alone: a running service and its ports are no mistake."""
    taken = served.folder / "taken.yaml"
    taken.write_text(CONFIG.replace("port: 0", f"port: {served.dicom[0]}"), "utf-8")
    for words in ([], ["--config", "taken.yaml"]):
        ended = command("check", *words, folder=served.folder)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "good: 1 AE title, 1 pipeline, 0 sources" in ended.stdout


def test_port_in_use(served: Served, tmp_path: Path) -> None:
    """A DICOM port that is taken ends `serve` with 1, a line that names it, and no ready line."""
    answer = refused(tmp_path, CONFIG.replace("port: 0", f"port: {served.dicom[0]}"))
    assert (answer.code, answer.out) == (1, "")
    assert f"cannot listen on 127.0.0.1:{served.dicom[0]}" in answer.err
    assert "Traceback" not in answer.err


def test_two_ports(tmp_path: Path) -> None:
    """Every DICOM port and the TCP address of gRPC are in the ready line, and they listen."""
    own = free_port()
    text = f"{TWO_PORTS}  SECOND: {{port: {own}, settings: {{pipeline-copy: copy}}}}\n"
    with serving(tmp_path, text) as started:
        pattern = r"ready dicom=127\.0\.0\.1:\d+,127\.0\.0\.1:(\d+) grpc=(127\.0\.0\.1:\d+)"
        matched = re.fullmatch(pattern, started.line)
        assert matched
        assert int(matched[1]) == own
        for port, title in zip(started.dicom, ("TEST", "SECOND"), strict=True):
            with association(port, title) as opened:
                assert opened.is_established
        asked = command("jobs", "list", "--server", matched[2], folder=tmp_path)
        assert (asked.returncode, "a token is needed" in asked.stderr) == (1, True)
        # A gRPC port that is taken is refused like a DICOM port.
        other = tmp_path / "other"
        other.mkdir()
        answer = refused(other, CONFIG.replace("listen: null", f'listen: "{matched[2]}"'))
        assert (answer.code, answer.out) == (1, "")
        # And gRPC's own words for it are not for people.
        (line,) = answer.err.splitlines()[-1:]
        assert f"cannot listen on {matched[2]}" in line
        assert all(text.startswith("{") for text in answer.err.splitlines()[:-1]), answer.err
        assert started.end(signal.SIGINT) == 0
        assert started.process.stdout is not None
        assert not started.process.stdout.read(), "only the ready line goes to standard output"
        actions = [line["action"] for line in started.logged()]
        assert actions[-1] == "stopped"


def test_drain(tmp_path: Path) -> None:
    """SIGTERM lets an association end, and a second signal does not wait for it."""
    with serving(tmp_path) as started, association(started.dicom[0]) as opened:
        assert opened.is_established
        started.process.terminate()
        started.lines.wait_for('"stopping"')
        assert started.process.poll() is None
        assert started.end() == 128 + signal.SIGTERM
        opened.abort()


def test_sigterm(tmp_path: Path) -> None:
    """SIGTERM ends it with 0, also when it comes while the service starts."""
    with serving(tmp_path) as started:
        assert started.end() == 0
    process = start("serve", folder=tmp_path)
    assert process.stderr is not None
    # The reclaimer logs when it starts: before the DICOM ports listen.
    assert '"kept"' in process.stderr.readline()
    process.terminate()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert out.count("\n") <= 1


def test_terminal_that_goes_away(tmp_path: Path) -> None:
    """On a terminal SIGHUP, also twice, is a reason to drain; after nohup it is none."""
    master, slave = pty.openpty()
    with (
        serving(tmp_path, stdin=slave) as started,
        association(started.dicom[0]) as opened,
    ):
        started.process.send_signal(signal.SIGHUP)
        started.lines.wait_for('"stopping"')
        started.process.send_signal(signal.SIGHUP)
        opened.release()
        assert started.process.wait(PATIENCE) == 0
    os.close(slave)
    os.close(master)
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(tmp_path) as started:
            started.process.send_signal(signal.SIGHUP)
            with association(started.dicom[0]) as opened:
                assert opened.is_established
            assert started.end() == 0
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_folder_that_may_not_be_written(shared: Path) -> None:
    """A data folder without rights is told with its name, and the key that chooses it."""
    (shared / "data").mkdir(mode=0o500)
    answer = as_nobody("serve", folder=shared)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert f"{shared}/data" in answer.err
    assert "Permission denied" in answer.err
    assert "storage.path" in answer.err


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    """A data folder below a file is no folder: one line, exit 1."""
    (tmp_path / "file").write_text("", "utf-8")
    answer = refused(tmp_path, CONFIG, "--data", "file/data")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert "file/data: Not a directory" in answer.err


def test_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """A data folder too deep for a Unix socket is refused before anything listens."""
    answer = refused(tmp_path, CONFIG, "--data", "x" * 100)
    assert (answer.code, answer.out) == (1, "")
    assert "too long for a Unix socket (107 bytes at most)" in answer.err
    assert "choose a shorter storage.path" in answer.err


def test_mistakes_are_the_same(tmp_path: Path) -> None:
    """`serve` prints the very lines of `check`, exits 2, and starts nothing."""
    text = CONFIG.replace("port: 0", "port: high") + "nonsense: 1\n"
    answer = refused(tmp_path, text)
    checked = command("check", folder=tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert (checked.returncode, checked.stdout, checked.stderr) == (2, "", answer.err)
    assert [line.partition(" ")[0] for line in answer.err.splitlines()] == [
        "dicom-adapter.yaml:2:",
        f"dicom-adapter.yaml:{text.count(chr(10))}:",
    ]
    assert not (tmp_path / "data").exists()


def test_nobody_reads_the_ready_line(tmp_path: Path) -> None:
    """A service whose output cannot be written stops in its order instead of half living on."""
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PROGRAM, "serve"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
