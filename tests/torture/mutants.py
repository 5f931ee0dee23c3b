"""The service with one flush left out: what the tests must notice.

`python -m tests.torture.mutants NAME serve ...` runs it.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from dicom_adapter import files
from dicom_adapter.cli import main
from dicom_adapter.ledger import database
from dicom_adapter.model import Durability


def _no_flush_of_files() -> None:
    def file(self: files.FlushToDisk, descriptor: int) -> None:
        """Leave the bytes in the kernel's cache."""

    files.FlushToDisk.file = file  # type: ignore[method-assign]


def _no_flush_of_folders() -> None:
    def folder(self: files.FlushToDisk, folder: Path) -> None:
        """Leave the names in the kernel's cache."""

    files.FlushToDisk.folder = folder  # type: ignore[method-assign]


def _ledger_normal() -> None:
    database.SYNCHRONOUS[Durability.POWER_LOSS] = "NORMAL"


def _ledger_off() -> None:
    database.SYNCHRONOUS[Durability.POWER_LOSS] = "OFF"


MUTANTS: dict[str, Callable[[], None]] = {
    "no flush of files": _no_flush_of_files,
    "no flush of folders": _no_flush_of_folders,
    "ledger NORMAL": _ledger_normal,
    "ledger OFF": _ledger_off,
}

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    sys.exit(main())
