"""The command line as users meet it: in a pipe, on a terminal, beside a service, as nobody."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.support import CONFIG, PATIENCE, command

NOBODY = 65534

#: What a user types; `python -m` is the same, and needs no PATH.
PROGRAM = (sys.executable, "-m", "dicom_adapter")

# The interpreter may lie where nobody may read, so all is imported before the rights go.
_AS_NOBODY = f"""
import contextlib, io, os, sqlite3, sys
import sqlalchemy.dialects.sqlite
from dicom_adapter.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["check", "--config", "dicom-adapter.yaml"])
if os.getuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The objects of JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Lines:
    """What a process writes, line by line as it comes."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    def text(self) -> str:
        """Return all that was written so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, word: str) -> None:
        """Return when a line has a word in it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(word in line for line in self._lines), PATIENCE
            )
            assert found, "".join(self._lines)

    def end(self) -> str:
        """Wait for the end of the stream and return all of it."""
        self._reader.join(PATIENCE)
        return self.text()


@dataclass(frozen=True)
class Served:
    """A service that was started as a user would."""

    process: "subprocess.Popen[str]"
    line: str
    folder: Path
    lines: "Lines"

    @property
    def dicom(self) -> list[int]:
        """The DICOM ports of the ready line."""
        return [int(place.rpartition(":")[2]) for place in self.places["dicom"].split(",")]

    @property
    def places(self) -> dict[str, str]:
        """What the ready line says, by its names."""
        word, *parts = self.line.split()
        assert word == "ready"
        return dict(part.split("=", 1) for part in parts)

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.lines.text()

    def logged(self) -> list[dict[str, Any]]:
        """Every line of its log, which must be JSON."""
        return [json.loads(line) for line in self.log.splitlines()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.lines.end()
        return code


@contextmanager
def serving(
    folder: Path, text: str = CONFIG, *words: str, stdin: int = subprocess.DEVNULL
) -> Iterator[Served]:
    """Run `dicom-adapter serve` in a folder until the block ends; it has said that it is ready."""
    (folder / "dicom-adapter.yaml").write_text(text, "utf-8")
    process = start("serve", *words, folder=folder, stdin=stdin)
    assert process.stdout is not None
    assert process.stderr is not None
    lines = Lines(process.stderr)
    try:
        line = process.stdout.readline()
        assert line, lines.end()
        yield Served(process, line.rstrip("\n"), folder, lines)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE)
        lines.end()
        process.stdout.close()
        process.stderr.close()


def start(*words: str, folder: Path, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    """Start a command whose output is read while it runs."""
    return subprocess.Popen(
        [*PROGRAM, *words],
        cwd=folder,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended_jobs(address: str, count: int) -> list[jobs_pb2.Job]:
    """Wait until so many jobs of a service have ended, and return them."""
    ended = {}
    request = jobs_pb2.WatchJobsRequest(after_event=1)
    with Client(address) as client, client.errors():
        for change in client.jobs.WatchJobs(request, timeout=PATIENCE):
            if change.job.HasField("finished_at"):
                ended[change.job.id] = change.job
            if len(ended) == count:
                break
    return list(ended.values())


def as_process(*words: str, folder: Path) -> Answer:
    """Run a command in a process of its own."""
    ended = command(*words, folder=folder)
    return Answer(ended.returncode, ended.stdout, ended.stderr)


def refused(folder: Path, text: str, *words: str) -> Answer:
    """Run a `serve` that must not come up."""
    (folder / "dicom-adapter.yaml").write_text(text, "utf-8")
    return as_process("serve", *words, folder=folder)


def as_nobody(*words: str, folder: Path) -> Answer:
    """Run a command without root's rights, over the configuration in a folder."""
    ended = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    return Answer(ended.returncode, ended.stdout, ended.stderr)


def on_terminal(
    *words: str, folder: Path, columns: int = 80, typed: str = "", environment: str = "xterm"
) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and all that appeared there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": environment},
    )
    os.close(slave)
    if typed:
        os.write(master, typed.encode())
    shown = b"".join(_read(master))
    os.close(master)
    return process.wait(PATIENCE), shown.decode().replace("\r\n", "\n")


def _read(master: int) -> Iterator[bytes]:
    while select.select([master], [], [], PATIENCE)[0]:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            # So a terminal says that its last user is gone.
            return
        if not chunk:
            return
        yield chunk
