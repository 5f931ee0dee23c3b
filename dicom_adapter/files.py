"""What the rooms that keep files have in common."""

import os
from pathlib import Path

#: Received data, job inputs: written once, then only read.
FILE_MODE = 0o440
#: Folders are the service's alone.
FOLDER_MODE = 0o700


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
