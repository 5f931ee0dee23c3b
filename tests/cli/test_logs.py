"""The service's log: JSON Lines or text, by level, whatever becomes of whoever reads it."""

import io
import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from dicom_adapter import logs
from dicom_adapter.config import LogSettings
from tests.cli.shell import PROGRAM, serving
from tests.support import CONFIG, association

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give the process back what `configure` takes over."""
    hooks, before = (threading.excepthook, sys.unraisablehook), structlog.get_config()
    with warnings.catch_warnings():
        yield
    threading.excepthook, sys.unraisablehook = hooks
    structlog.configure(**before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, **settings: str) -> str:
    """Return what three lines become."""
    logs.configure(LogSettings.model_validate(settings), stream)
    log.debug("fine", action="a")
    log.info("red \x1b[31m", action="b", why="two\nlines")
    log.error("bad", action="c")
    return stream.getvalue()


def test_json() -> None:
    """As JSON each line has its time, level, event and action."""
    lines = [json.loads(line) for line in written(io.StringIO(), format="json").splitlines()]
    assert [line["level"] for line in lines] == ["info", "error"]
    for line in lines:
        assert line.keys() >= {"timestamp", "level", "event", "action"}
        assert line["timestamp"].endswith("Z")
    assert lines[0]["why"] == "two\nlines"


@pytest.mark.parametrize(
    ("level", "actions"), [("debug", "abc"), ("info", "bc"), ("warning", "c"), ("error", "c")]
)
def test_levels(level: str, actions: str) -> None:
    """Lines below the configured level are not written."""
    lines = written(io.StringIO(), format="json", level=level).splitlines()
    assert "".join(json.loads(line)["action"] for line in lines) == actions


def test_text_in_a_pipe() -> None:
    """Text has no colours in a pipe, no control characters, and no actions: they are for JSON."""
    text = written(io.StringIO(), format="text")
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text
    assert r"red \x1b[31m" in text
    assert "action" not in text
    assert r"two\nlines" in text.replace(r"\\n", r"\n")


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets coloured text; with NO_COLOR, text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in written(Terminal(), format="auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written(Terminal(), format="auto")


def test_elsewhere() -> None:
    """Where nobody watches, `auto` is JSON."""
    assert json.loads(written(io.StringIO(), format="auto").splitlines()[0])


def test_a_log_that_cannot_be_written() -> None:
    """A full disk or a closed pipe behind the log stops no work."""
    # Closing it fails again: that, too, is not the log's business.
    with suppress(OSError), Path("/dev/full").open("w") as full:
        logs.configure(LogSettings(format="json"), full)
        log.error("lost", action="a")
        written_on = True
    assert written_on
    closed = io.StringIO()
    closed.close()
    logs.configure(LogSettings(format="json"), closed)
    log.error("lost", action="a")


def test_a_thread_that_dies() -> None:
    """What a thread died of is a line of the log, with its place, but without its words."""
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), stream)

    def fail() -> None:
        raise ValueError("DOE^JOHN")

    thread = threading.Thread(target=fail, name="worker-1")
    thread.start()
    thread.join()
    line = json.loads(stream.getvalue())
    assert (line["action"], line["error"], line["thread"]) == (
        "thread.died",
        "ValueError",
        "worker-1",
    )
    assert "DOE" not in stream.getvalue()


def test_a_service_whose_log_is_read_no_more(tmp_path: Path) -> None:
    """A service goes on receiving when the reader of its log is gone."""
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    process = subprocess.Popen(
        [*PROGRAM, "serve"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(process.stdout.readline().split()[1].rpartition(":")[2])
    process.stderr.close()
    for _ in range(2):
        with association(port) as opened:
            assert opened.is_established
    process.terminate()
    assert process.wait() == 0
    process.stdout.close()


def test_every_line_of_a_service_is_json(tmp_path: Path) -> None:
    """From start to stop a service writes JSON alone; one line of it says how to send."""
    with serving(tmp_path, CONFIG + "log: {format: json, level: debug}\n") as service:
        with association(service.dicom[0], "WRONG") as opened:
            assert opened.is_rejected
        service.end()
    for line in service.logged():
        assert line.keys() >= {"timestamp", "level", "event", "action"}
    (listening,) = [line for line in service.logged() if line["action"] == "listening"]
    peer = f"TEST@localhost:{service.dicom[0]}"
    assert listening["example"] == f"dicom-adapter send FOLDER --to {peer}"
