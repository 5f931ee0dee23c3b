"""The service with something altered that a test cannot alter from outside.

`python -m tests.torture.altered NAME serve ...` runs it. Some of it makes the service worse, to see
whether the tests notice.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from dicom_adapter import backoff, clock, files
from dicom_adapter.cli import main
from dicom_adapter.ledger import database
from dicom_adapter.model import Durability
from dicom_adapter.rpc import client

#: Holds how many seconds the wall clock is ahead, in the folder that the service is started in.
AHEAD = Path("ahead")
#: How long an impatient service waits for its ledger, in seconds.
PATIENCE_SECONDS = 1.0
_RECONNECT = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 400,
}


def _ahead() -> float:
    with suppress(OSError, ValueError):
        return float(AHEAD.read_text("utf-8"))
    return 0.0


def _stepped() -> None:
    # For the service's own clock alone: gRPC's deadlines are compared with the real one.
    stepped = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=_ahead()))
    vars(clock)["datetime"] = stepped


def _impatient() -> None:
    database.LONGEST_WAIT_SECONDS = PATIENCE_SECONDS


def _hasty(deadline: float) -> None:
    """Give each call up, and try it again, after a fraction of the time."""
    options = {**dict(client.options()), **_RECONNECT}
    client.options = lambda: list(options.items())
    client.CALL_SECONDS = deadline
    backoff.FIRST_PAUSE_SECONDS = 0.1
    backoff.LONGEST_PAUSE_SECONDS = 0.5


def _no_flush_of_files() -> None:
    def file(self: files.FlushToDisk, descriptor: int) -> None:
        """Leave the bytes in the kernel's cache."""

    files.FlushToDisk.file = file  # type: ignore[method-assign]


def _no_flush_of_folders() -> None:
    def folder(self: files.FlushToDisk, folder: Path) -> None:
        """Leave the names in the kernel's cache."""

    files.FlushToDisk.folder = folder  # type: ignore[method-assign]


def _ledger(synchronous: str) -> None:
    database.SYNCHRONOUS[Durability.POWER_LOSS] = synchronous


#: One flush left out: what a power cut must show.
WITHOUT_A_FLUSH: Mapping[str, Callable[[], None]] = {
    "no flush of files": _no_flush_of_files,
    "no flush of folders": _no_flush_of_folders,
    "ledger NORMAL": partial(_ledger, "NORMAL"),
    "ledger OFF": partial(_ledger, "OFF"),
}
ALTERED: Mapping[str, Callable[[], None]] = {
    **WITHOUT_A_FLUSH,
    "stepped": _stepped,
    "impatient": _impatient,
    # The deadline of a call, in seconds.
    "hasty 1": partial(_hasty, 1.0),
    "hasty 15": partial(_hasty, 15.0),
}

if __name__ == "__main__":
    ALTERED[sys.argv.pop(1)]()
    sys.exit(main())
