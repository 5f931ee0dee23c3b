"""Moves, shares and removes what lies in a job's folder, whatever its pipeline made of it."""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from dicom_adapter.files import FILE_MODE, FOLDER_MODE, make_folder

# ioctl(2) FICLONE: the new file shares the old one's blocks, where the filesystem can.
FICLONE = 0x40049409


def move(path: Path, place: Path) -> bool:
    """Move what is there and has not been moved: again does no harm."""
    if not path.exists() or place.exists():
        return False
    make_folder(place.parent)
    path.rename(place)
    return True


def share(source: Path, target: Path) -> None:
    """Make `target` the same bytes as `source` at no cost: a reflink, else a hard link."""
    if not _reflink(source, target):
        os.link(source, target)
    # Whatever the mask of the service is: its folders keep others out.
    target.chmod(FILE_MODE)


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as original:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            fcntl.ioctl(descriptor, FICLONE, original.fileno())
            os.fsync(descriptor)
        except OSError:
            target.unlink()
            return False
        finally:
            os.close(descriptor)
    return True


def remove(path: Path) -> None:
    """Remove what a pipeline may have made of a path: a file, a link, or folders it has locked.

    What another user has put there, and cannot be removed, stays: it must not stop all the rest.
    """
    with suppress(OSError):
        _remove_now(path)
        return
    _unlock(path)
    with suppress(OSError):
        _remove_now(path)


def _remove_now(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unlock(path: Path) -> None:
    """Make the folders in a path, and the one around it, such that they can be emptied."""
    for folder in (path.parent, path):
        _open_folder(folder)
    if path.is_symlink():
        return
    # From the top: a folder is looked into after it was opened.
    for place, folders, _ in os.walk(path):
        for name in folders:
            _open_folder(Path(place) / name)


def _open_folder(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.chmod(FOLDER_MODE)
