"""`reload` and SIGHUP as a user sends them to a service that is another process."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.shell import Served, serving
from tests.support import CONFIG, association

SECOND = CONFIG + "  SECOND: {settings: {pipeline-copy: copy}}\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A service of CONFIG, without a terminal."""
    with serving(tmp_path) as started:
        yield started


def write(served: Served, text: str) -> None:
    """Change the configuration."""
    (served.folder / "dicom-adapter.yaml").write_text(text, "utf-8")


def is_accepted(served: Served, called: str) -> bool:
    """Tell whether an association with an AE title is accepted."""
    with association(served.dicom[0], called) as opened:
        return bool(opened.is_established)


def test_what_has_changed_is_told_a_line_each(served: Served, cli: Command) -> None:
    """People get a table, programs JSON Lines; a file that says the same changes nothing."""
    write(served, SECOND + "platform: {max_jobs: 1}\n")
    answer = cli("reload")
    assert (answer.code, answer.err) == (0, "")
    assert [line.split() for line in answer.out.splitlines()] == [
        ["key", "change"],
        ["platform.max_jobs", "changed"],
        ["ae_titles.SECOND", "added"],
    ]
    assert is_accepted(served, "SECOND")
    assert cli("reload").out == "The service goes by this configuration already.\n"
    write(served, CONFIG)
    assert cli("reload", "--json").rows == [
        {"key": "platform.max_jobs", "change": "changed"},
        {"key": "ae_titles.SECOND", "change": "removed"},
    ]
    assert cli("reload", "--json").out == ""


def test_mistakes_are_those_of_check(served: Served, cli: Command, tmp_path: Path) -> None:
    """Whoever finds them, this command or the service, prints the very lines, and exits 2."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(served, SECOND.replace("port: 0", "port: high") + "nonsense: 1\n")
    checked, asked = cli("check"), cli("reload")
    told = cli("reload", "--server", served.places["grpc"], folder=elsewhere)
    assert len(checked.err.splitlines()) == 2
    assert (checked.code, asked.code, told.code) == (2, 2, 2)
    assert asked.err == told.err == checked.err
    assert (asked.out, told.out) == ("", "")
    assert is_accepted(served, "TEST")
    assert not is_accepted(served, "SECOND")


def test_a_file_that_is_gone_is_a_mistake(served: Served, cli: Command) -> None:
    """The service does not fall back to the built-in default, which would drop its AE titles."""
    (served.folder / "dicom-adapter.yaml").unlink()
    answer = cli("reload", "--server", served.places["grpc"])
    assert answer.code == 2
    assert answer.err == ("dicom-adapter.yaml:1: file: cannot be read: No such file or directory\n")
    assert is_accepted(served, "TEST")


def test_a_moved_data_folder_is_named_where_the_service_is_found(
    served: Served, cli: Command
) -> None:
    """With the new folder's path nobody is found; by the old one the service says what it is."""
    write(served, CONFIG.replace("storage: {", "storage: {path: elsewhere, "))
    assert cli("reload").code == 1
    answer = cli("reload", "--data", "data")
    assert answer.code == 2
    assert answer.err.startswith("dicom-adapter.yaml:4: storage.path: needs a restart")
    assert answer.err.count("\n") == 1, "where the ledger lies is no mistake of its own"


def test_more_mistakes_than_a_status_holds(served: Served, cli: Command) -> None:
    """However many there are, each is told."""
    write(served, CONFIG + "".join(f"nonsense-{n}: 1\n" for n in range(1000)))
    told = cli("reload", "--server", served.places["grpc"])
    assert (told.code, len(told.err.splitlines())) == (2, 1000)


def test_a_key_that_needs_a_restart_is_named(served: Served, cli: Command) -> None:
    """All of the file is refused then, also what could be changed."""
    write(served, SECOND.replace("grpc: {listen: null}", 'grpc: {listen: "127.0.0.1:0"}'))
    answer = cli("reload")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "dicom-adapter.yaml:3: grpc.listen: needs a restart: it cannot change while the service "
        "runs\n"
    )
    assert not is_accepted(served, "SECOND")


def test_what_cannot_start_is_told(served: Served, cli: Command) -> None:
    """One line and exit 1: the file is good, but not here and now."""
    write(served, SECOND.replace("SECOND: {", "SECOND: {processor: 'cannot:Start', "))
    (served.folder / "cannot.py").write_text(
        "from processors.ae_title import AETitleProcessor\n\n\n"
        "class Start(AETitleProcessor):\n    name = 'cannot'\n\n"
        "    def start(self):\n        raise OSError('no model file')\n",
        "utf-8",
    )
    answer = cli("reload")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        "dicom-adapter: AE title SECOND: its job processor 'cannot' cannot start: OSError: no "
        "model file; nothing has changed\n"
    )


def test_sighup_reloads(served: Served) -> None:
    """Without a terminal SIGHUP reloads, time and again; the log says what came of it."""
    with association(served.dicom[0]) as opened:
        write(served, SECOND)
        served.process.send_signal(signal.SIGHUP)
        served.lines.wait_for('"reloaded"')
        assert is_accepted(served, "SECOND")
        write(served, SECOND + "nonsense: 1\n")
        served.process.send_signal(signal.SIGHUP)
        served.lines.wait_for('"reload.refused"')
        assert is_accepted(served, "SECOND")
        assert opened.is_established
    assert served.end() == 0
    logged = {line["action"]: line for line in served.logged()}
    assert logged["reloaded"]["changes"] == ["ae_titles.SECOND added"]
    (why,) = logged["reload.refused"]["why"]
    assert why.startswith("dicom-adapter.yaml:12: nonsense: is an unknown key")


def test_the_words_of_serve_hold_at_a_reload_too(tmp_path: Path, cli: Command) -> None:
    """`--data` stands in for storage.path as before; the file is the one that was found then."""
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG, "utf-8")
    with serving(tmp_path, CONFIG, "--config", "other.yaml", "--data", "mine") as started:
        other.write_text(SECOND.replace("storage: {", "storage: {path: ours, "), "utf-8")
        answer = cli("reload", "--config", "other.yaml", "--data", "mine", "--json")
        assert answer.rows == [{"key": "ae_titles.SECOND", "change": "added"}]
        assert is_accepted(started, "SECOND")
