"""What is typed: commands, options, where the configuration is found, and how mistakes are told."""

import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import CONFIG, command

COMMANDS = (
    "serve", "check", "status", "doctor", "send", "echo", "demo", "hash-passcode",
    "fsck", "reload", "audit export", "jobs list", "jobs show", "jobs logs", "jobs watch",
    "jobs outputs",
    "jobs cancel", "jobs retry", "jobs rerun", "jobs invalidate", "jobs delete",
    "studies list", "studies show", "studies find", "studies fetch", "studies release",
    "series list", "series show", "series instances", "series preview", "compose",
    "pipelines list", "pipelines show",
    "platform show", "platform pause", "platform drain", "platform resume",
    "groups list", "groups complete", "groups discard",
    "submissions list", "submissions retry", "submissions discard",
    "quarantine list", "quarantine show", "quarantine retry", "quarantine discard",
    "webhooks list", "webhooks retry", "webhooks discard",
)  # fmt: skip
ASKING = ("status", "jobs list", "pipelines list", "groups list", "quarantine show x")


@pytest.mark.parametrize("words", COMMANDS)
def test_help(cli: Command, words: str) -> None:
    """Every command has a help of whole sentences that fits 80 columns."""
    answer = cli(*words.split(), "--help")
    assert answer.code == 0
    assert not answer.err
    assert answer.out.startswith(f"Usage: dicom-adapter {words}")
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "..." not in answer.out.partition("\n")[2]
    # Python's names of types are not what people type.
    assert "<" not in answer.out


@pytest.mark.parametrize(
    "words",
    [
        *("", "jobs", "groups", "submissions", "quarantine", "webhooks"),
        *("pipelines", "platform", "audit", "studies", "series"),
    ],
)
def test_missing_command(cli: Command, words: str) -> None:
    """Where a command is missing, the help that names all of them is shown, uncut, with exit 2."""
    answer = cli(*words.split())
    assert answer.code == 2
    assert not answer.out
    assert "Commands:" in answer.err
    assert "..." not in answer.err.partition("\n")[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("jobs nonsense", "No such command 'nonsense'"),
        ("jobs list --nonsense", "No such option: --nonsense"),
        ("jobs show", "Missing argument 'JOB'"),
        ("send .", "Missing option '--to'"),
        ("jobs list --state asleep", "'asleep' is not one of"),
        ("jobs list --limit 0", "'--limit'"),
        ("jobs list --server nowhere", "'nowhere' must have the form HOST:PORT or unix:PATH"),
        ("audit export --since yesterday", "'yesterday' must be a time as 2026-01-31 or 2026-01"),
        ("audit export --after -1", "'--after'"),
        ("groups complete", "name groups by their ids, or all of them by --all"),
        ("groups discard a --all --yes", "name groups by their ids, or all of them by --all"),
        ("quarantine retry", "name instances by their ids, or all of them by --all"),
        ("studies release --yes", "name a study, or a series with --series"),
        ("compose x", "name a series, or a study with --study"),
        ("echo foo", "'foo' must have the form AET@HOST:PORT"),
        ("echo A@localhost:0", "a port is from 1 to 65535"),
        ("echo A@localhost:65536", "a port is from 1 to 65535"),
        ("echo SEVENTEEN_LETTERS@localhost:1", "at most 16 characters"),
        ("echo A@localhost:1 --calling a\\b", "Invalid value for '--calling'"),
        ("send nowhere --to A@localhost:1", "'nowhere' does not exist"),
        ("send . --to A@localhost", "must have the form AET@HOST:PORT"),
    ],
)
def test_wrong_words(cli: Command, words: str, told: str) -> None:
    """Wrong words end with 2 and one line that says what is wrong and where to read on."""
    answer = cli(*words.split())
    assert answer.code == 2
    assert not answer.out
    assert told in answer.err
    assert re.fullmatch(r"dicom-adapter: [^\n]+\. See `dicom-adapter[^`]* --help`\.\n", answer.err)


def test_suggestion(cli: Command) -> None:
    """A word that was nearly right is answered with the right one, as a question."""
    assert cli("job").err == (
        "dicom-adapter: No such command 'job'. Did you mean 'jobs'? See `dicom-adapter --help`.\n"
    )


def test_make_help() -> None:
    """`make help` lists the targets that people use, each with what it does."""
    ended = subprocess.run(
        ["make", "help"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "  make run     Start the adapter and leave it running.\n" in ended.stdout
    assert "clean" not in ended.stdout


def test_no_traceback_as_a_process(tmp_path: Path) -> None:
    """What is true in this process is true of the program: one line, no traceback."""
    ended = command("jobs", "nonsense", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == (
        "dicom-adapter: No such command 'nonsense'. See `dicom-adapter jobs --help`.\n"
    )


@pytest.mark.parametrize("words", COMMANDS)
def test_config_and_server_everywhere(cli: Command, tmp_path: Path, words: str) -> None:
    """Every command takes --config and --server after its words: none calls them unknown."""
    file = tmp_path / "wrong.yaml"
    file.write_text("nonsense: 1\n", "utf-8")
    answer = cli(*words.split(), "--config", str(file), "--server", "localhost:1", "--no-such")
    assert answer.code == 2
    assert "No such option: --no-such" in answer.err


@pytest.mark.parametrize("words", ASKING)
def test_no_service(cli: Command, tmp_path: Path, words: str) -> None:
    """Without a service there is one line that names the address and the cure, and exit 1."""
    answer = cli(*words.split())
    assert answer.code == 1
    assert answer.err.startswith(
        f"dicom-adapter: no service answers at unix:{tmp_path}/data/run/grpc.sock"
    )
    assert "dicom-adapter serve" in answer.err
    assert answer.err.count("\n") == 1


def test_which_configuration(cli: Command, tmp_path: Path) -> None:
    """Where no service answers, the configuration that was asked by is named, or its absence."""
    default = "; configuration: the built-in default: no --config, no ./dicom-adapter.yaml)"
    assert default in cli("status").err
    assert default in cli("jobs", "list").err
    (tmp_path / "other.yaml").write_text(CONFIG, "utf-8")
    assert "; configuration: other.yaml)" in cli("status", "--config", "other.yaml").err
    assert "configuration:" not in cli("status", "--server", "localhost:1").err


def test_stale_socket(cli: Command, tmp_path: Path) -> None:
    """The socket file of a killed service is no service: the same clear line."""
    path = tmp_path / "data" / "run" / "grpc.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    answer = cli("status")
    assert answer.code == 1
    assert "no service answers" in answer.err
    assert "Connection refused" in answer.err


def test_no_service_at_a_port(cli: Command) -> None:
    """A TCP address where nothing listens is told as plainly."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    answer = cli("groups", "list", "--server", address)
    assert answer.code == 1
    assert f"no service answers at {address} (Connection refused)" in answer.err


def test_built_in_default(cli: Command, tmp_path: Path) -> None:
    """Without any configuration the built-in one is used, its data in ./data."""
    answer = cli("check")
    assert answer.code == 0
    assert answer.out.startswith("the built-in default: good: 1 AE title, 2 pipelines, 0 sources")
    assert str(tmp_path / "data") in cli("status").err


def test_usual_file(cli: Command, tmp_path: Path) -> None:
    """./dicom-adapter.yaml is used where it lies."""
    (tmp_path / "dicom-adapter.yaml").write_text(
        CONFIG + "  SECOND: {settings: {pipeline-a: copy}}"
    )
    assert "dicom-adapter.yaml: good: 2 AE titles, 1 pipeline" in cli("check").out


def test_environment(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DICOM_ADAPTER_CONFIG goes before ./dicom-adapter.yaml, and --config before both."""
    (tmp_path / "dicom-adapter.yaml").write_text("nonsense: 1\n", "utf-8")
    (tmp_path / "named.yaml").write_text(CONFIG, "utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "given.yaml").write_text(CONFIG, "utf-8")
    monkeypatch.setenv("DICOM_ADAPTER_CONFIG", "named.yaml")
    assert "named.yaml: good" in cli("check").out
    assert "given.yaml: good" in cli("check", "--config", "other/given.yaml").out
    # Relative paths inside a file start from where it lies.
    assert str(tmp_path / "other" / "data") in cli("status", "--config", "other/given.yaml").err


def test_data_overrides_the_path(cli: Command, tmp_path: Path) -> None:
    """--data goes before storage.path, for the commands that ask as for the one that serves."""
    assert str(tmp_path / "elsewhere" / "run") in cli("status", "--data", "elsewhere").err


def test_mistakes(cli: Command, tmp_path: Path) -> None:
    """Every command tells every mistake of the configuration as `check` does, and exits 2."""
    (tmp_path / "bad.yaml").write_text(
        "dicom: {port: high}\nae_titles:\n  A: {}\n  THIS_IS_FAR_TOO_LONG: {}\nnonsense: 1\n"
    )
    answers = [
        cli(*words, "--config", "bad.yaml")
        for words in (["check"], ["serve"], ["jobs", "list"], ["doctor"])
    ]
    assert {answer.code for answer in answers} == {2}
    assert len({answer.err for answer in answers}) == 1
    lines = answers[0].err.splitlines()
    assert len(lines) >= 4
    for line in lines:
        assert re.match(r"bad\.yaml:\d+: [A-Za-z_.]+: .+", line), line


def test_version(cli: Command) -> None:
    """--version says which one is installed."""
    assert re.fullmatch(r"dicom-adapter \d+\.\d+\.\d+\n", cli("--version").out)
