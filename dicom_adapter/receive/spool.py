"""The folder that holds received instances, each under a name of our own.

    incoming/<id>.part      still being received; swept when the service starts
    instances/<xx>/<id>.dcm stored, durable and never overwritten; <xx> begins the id

Nothing that a peer sent ever becomes a part of a path.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from dicom_adapter.errors import StartError
from dicom_adapter.files import FILE_MODE, make_folder, sync_folder


class Hash(Protocol):
    """The part of hashlib's objects that the spool uses."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Return the digest so far, in hexadecimal."""


@dataclass
class Part:
    """A file that is being received: not durable, and not yet under its final name."""

    id: str
    path: Path
    descriptor: int
    digest: Hash
    size: int = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes to the file and to its digest."""
        self.digest.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self.descriptor, left) :]
        self.size += len(data)


class Spool:
    """Stores, finds and removes the files of received instances."""

    def __init__(self, folder: Path) -> None:
        self._incoming = folder / "incoming"
        self._instances = folder / "instances"

    def open(self) -> None:
        """Make the folders, and sweep what was half received when the service last ended.

        Raises:
            StartError: the folders cannot be made or written.
        """
        try:
            for folder in (self._incoming, self._instances):
                make_folder(folder)
            for part in self._incoming.iterdir():
                part.unlink()
        except OSError as error:
            raise StartError(
                f"{error.filename}: {error.strerror}: storage.path must be a folder that the "
                "service may write"
            ) from error

    def path_of(self, instance_id: str) -> Path:
        """Return where the file of an instance lies, whether it is there or not."""
        return self._instances / instance_id[:2] / f"{instance_id}.dcm"

    @contextmanager
    def receive(self, instance_id: str) -> Iterator[Part]:
        """Open a file to receive into; unless it was committed, it is gone after the block."""
        path = self._incoming / f"{instance_id}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        part = Part(instance_id, path, os.open(path, flags, FILE_MODE), sha256())
        try:
            yield part
        finally:
            os.close(part.descriptor)
            path.unlink(missing_ok=True)

    def commit(self, part: Part) -> Path:
        """Make a received file durable under its final name, and return that.

        The bytes are flushed before the name exists, and the name before this returns, so a power
        cut leaves the whole file or none.
        """
        os.fdatasync(part.descriptor)
        target = self.path_of(part.id)
        self._link(part.path, target)
        try:
            sync_folder(target.parent)
        except OSError:
            # The sender is told that it was not stored, so nothing may stay.
            target.unlink(missing_ok=True)
            raise
        return target

    def _link(self, source: Path, target: Path) -> None:
        # A link, not a rename: it refuses to replace a file that is there.
        while True:
            if not target.parent.exists():
                make_folder(target.parent)
                sync_folder(self._instances)
            try:
                os.link(source, target)
            except FileNotFoundError:
                # The reclaimer has just removed the empty folder: make it again.
                if not source.exists():
                    raise
            else:
                return

    def remove(self, instance_id: str) -> None:
        """Unlink the file of an instance, and its folder if that is empty now."""
        path = self.path_of(instance_id)
        path.unlink(missing_ok=True)
        # Synced before the ledger forgets the file, and before the folder itself may go.
        if path.parent.exists():
            sync_folder(path.parent)
        remove_if_empty(path.parent)

    def free(self) -> int:
        """Return the bytes that are free on the spool's volume."""
        return shutil.disk_usage(self._instances).free

    def used_fraction(self) -> float:
        """Return how full the spool's volume is, 0 to 1, as `df` has it: of what we may use."""
        usage = shutil.disk_usage(self._instances)
        return usage.used / (usage.used + usage.free)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder when nothing is in it."""
    try:
        folder.rmdir()
    except OSError:
        # Not empty, or gone already: both are as they should be.
        return
