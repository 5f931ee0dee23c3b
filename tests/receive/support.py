"""What the receiving tests share: a listener alone, its log, and running DCMTK."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from dicom_adapter.clock import SystemClock
from dicom_adapter.files import FlushToDisk
from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.model import StoredInstance
from dicom_adapter.receive import receiving as all_of_receiving
from dicom_adapter.receive.spool import Spool
from tests.support import CONFIG, PATIENCE, settings_of

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def config(dicom: str = "", *titles: str, more: str = "") -> str:
    """Return a configuration: further keys of `dicom`, of each AE title, and further sections.

    A title is its name, or its name, a colon and keys: `CHEST: port: 104`.
    """
    lines = CONFIG.partition("ae_titles")[0].replace("port: 0", f"port: 0{dicom and ', ' + dicom}")
    lines += "ae_titles:\n"
    for title in titles or ("TEST",):
        name, _, keys = title.partition(": ")
        lines += f"  {name}: {{settings: {{pipeline-copy: copy}}{keys and ', ' + keys}}}\n"
    return lines + more


class Log:
    """Every line that was logged, as values; those who wait for one are woken by it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, logger: object, method: str, line: Any) -> Any:  # noqa: ANN401 - structlog's own
        """Take one line, as a processor of structlog."""
        del logger
        with self._changed:
            self.lines.append({**line, "level": method})
            self._changed.notify_all()
        raise structlog.DropEvent

    def wait_for(self, action: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the lines of an action once there are so many."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.of(action)) >= count, PATIENCE)
        assert there, f"{action} was logged {len(self.of(action))} times, not {count}"
        return self.of(action)

    def of(self, action: str) -> list[dict[str, Any]]:
        """Return the lines of an action so far."""
        return [line for line in self.lines if line["action"] == action]

    @property
    def text(self) -> str:
        """Everything that was logged, as one text in which nothing is escaped."""
        return "\n".join(f"{key}={value}" for line in self.lines for key, value in line.items())


@dataclass(frozen=True)
class Receiving:
    """A listener with its spool and its ledger, and nothing behind them."""

    listener: all_of_receiving.Receiving
    ledger: Ledger
    spool: Spool
    ports: tuple[int, ...]
    folder: Path

    @property
    def port(self) -> int:
        """The first DICOM port."""
        return self.ports[0]

    def stored(self, ae_title: str = "TEST") -> list[StoredInstance]:
        """Return what the ledger knows for an AE title, the oldest first."""
        with self.ledger.read() as tx:
            found = instances.received(
                tx, ae_title, SystemClock().now(), 10_000, self.spool.path_of
            )
        return [instance for instance, _ in found]

    def files(self) -> list[Path]:
        """Return every file under the data folder that is not the ledger's.

        What was refused is removed after the answer: it is awaited that nothing of it is left.
        """
        incoming = self.folder / "data/spool/incoming"
        until = time.monotonic() + PATIENCE
        # Each receiving process has a folder of its own in it.
        while any(map(Path.is_file, incoming.rglob("*"))) and time.monotonic() < until:
            time.sleep(0.005)
        return sorted(
            path
            for path in (self.folder / "data").rglob("*")
            if path.is_file() and not path.name.startswith("ledger.db")
        )


@contextmanager
def receiving(
    folder: Path, text: str = CONFIG, stored: Callable[[str], None] = lambda _: None
) -> Iterator[Receiving]:
    """Listen on free ports over the data in a folder until the block ends."""
    settings = settings_of(folder, text)
    clock = SystemClock()
    (folder / "data").mkdir(exist_ok=True)
    ledger = Ledger(settings.ledger.url)
    spool = Spool(settings.storage.path / "spool", FlushToDisk())
    ledger.open()
    spool.open()
    receiving = all_of_receiving.Receiving(settings, spool, ledger, clock, stored=stored)
    ports = tuple(int(address.rpartition(":")[2]) for address in receiving.start())
    try:
        yield Receiving(receiving, ledger, spool, ports, folder)
    finally:
        receiving.stop(PATIENCE)
        ledger.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run a program; its two outputs are returned as one."""
    return subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="latin-1",
        timeout=PATIENCE * 3,
        check=False,
    )


def data_set_of(path: Path) -> bytes:
    """Return the bytes of a Part 10 file behind its file meta group, found without a library."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    at = 132
    while content[at : at + 2] == b"\x02\x00":
        if content[at + 4 : at + 6] in {b"OB", b"UN", b"UT", b"SQ", b"OW"}:
            at += 12 + int.from_bytes(content[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(content[at + 6 : at + 8], "little")
    return content[at:]
