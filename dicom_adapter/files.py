"""What the rooms that keep files have in common."""

import errno
import os
from pathlib import Path
from typing import Protocol

from dicom_adapter.model import Durability

#: Received data, job inputs: written once, then only read.
FILE_MODE = 0o440
#: Folders are the service's alone.
FOLDER_MODE = 0o700
#: The errors of a disk that is full: it may have room again later.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Between two attempts to write to one.
NO_ROOM_PAUSE_SECONDS = 5.0
#: A disk with less than that is full: most of what writes to it fails.
LITTLE = 1024**2


def is_full(folder: Path) -> bool:
    """Tell whether the disk of a folder has no room, for bytes or for files."""
    disk = os.statvfs(folder)
    # Some filesystems do not count files.
    return disk.f_bavail * disk.f_frsize < LITTLE or bool(disk.f_files and not disk.f_favail)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are not there, for the service alone."""
    # Not mkdir's own `parents`: that would leave the folders above open to everybody.
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: only then a new name in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Flush(Protocol):
    """How what was written is made to last."""

    @property
    def waits(self) -> bool:
        """True where that means to wait for the disk."""
        ...

    def file(self, descriptor: int) -> None:
        """Make the bytes of an open file last."""

    def folder(self, folder: Path) -> None:
        """Make the names in a folder last."""


class FlushToDisk:
    """Lasts over a power cut."""

    waits = True

    def file(self, descriptor: int) -> None:
        """Flush the bytes of an open file, and as much about it as finding them needs."""
        os.fdatasync(descriptor)

    def folder(self, folder: Path) -> None:
        """Flush the names in a folder."""
        sync_folder(folder)


class LeaveToKernel:
    """Lasts over the end of this process, however that comes, but not over a power cut."""

    waits = False

    def file(self, descriptor: int) -> None:
        """Leave the bytes in the kernel's cache."""

    def folder(self, folder: Path) -> None:
        """Leave the names in the kernel's cache."""


def flush_of(durability: Durability) -> Flush:
    """Return how to make what is stored last as long as the configuration asks."""
    return FlushToDisk() if durability == Durability.POWER_LOSS else LeaveToKernel()
