"""Disks that a test may cut the power of: filesystems in files, mounted as loop devices.

What has not been flushed is in the kernel's cache of the mounted filesystem, and not yet in the
file: a copy of the file is what a disk holds after a power cut. Mounting the copy replays its
journal, as the next boot does.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Longer than a test: the filesystem's journal is written when it is asked for, and not by the hour.
_OPTIONS = "loop,commit=300"


class Disk:
    """A filesystem in a file."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def make(self, size: str = "128M") -> "Disk":
        """Make an empty filesystem."""
        _run("truncate", "--size", size, self.image)
        # Nothing of it is left to be written in the background.
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-E", lazy, "-m", "0", "-i", "4096", self.image)
        return self

    def cut(self, copy: Path) -> "Disk":
        """Return a disk with what this one would hold if the power went now."""
        _run("cp", "--sparse=always", self.image, copy)
        return Disk(copy)

    @contextmanager
    def mounted(self, place: Path) -> Iterator[Path]:
        """Mount it in a folder until the block ends."""
        place.mkdir(exist_ok=True)
        _run("mount", "-o", _OPTIONS, self.image, place)
        with _unmounted_after(place):
            yield place
        place.rmdir()


@contextmanager
def room(place: Path, options: str) -> Iterator[Path]:
    """Mount a disk of memory, of a certain size, in a folder until the block ends."""
    place.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", place)
    with _unmounted_after(place):
        yield place


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Have nothing in a folder be made, renamed or removed, until the block ends."""
    _run("mount", "--bind", folder, folder)
    with _unmounted_after(folder):
        # This is refused while something is open to be written that was opened since.
        _run("mount", "-o", "remount,ro,bind", folder)
        yield


@contextmanager
def _unmounted_after(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # What still uses it after a failure must not keep it mounted for ever.
        if subprocess.run(["umount", str(place)], check=False, capture_output=True).returncode:
            _run("umount", "--lazy", place)


def why_there_are_none(folder: Path) -> str:
    """Return why this machine cannot have such disks, nothing when it can."""
    if os.geteuid():
        return "only root may mount a disk"
    try:
        with Disk(folder / "probe").make("4M").mounted(folder / "mounted"):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no loop devices with ext4 here: {error}"


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
