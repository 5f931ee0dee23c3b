"""The data folder: one service at a time has it, and a marker proves that it is the right one."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_adapter.errors import StartError
from dicom_adapter.files import make_folder, sync_folder

#: It lies in every data folder that a service has used, and in no mount point of a volume.
MARKER = "dicom-adapter.marker"
_LOCK = "lock"
_TEXT = (
    "This folder holds the data of a DICOM Adapter. Without this file it is not started on it.\n"
)


class DataFolder:
    """The folder that `storage.path` names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the folder for this process alone, and make it where there is none.

        Raises:
            StartError: another process has it, or it cannot be written.
        """
        try:
            make_folder(self.path)
            # Held by the open file: it ends with the process, however that ends.
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_write(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StartError(
                f"{self.path} is in use by another dicom-adapter: stop that one, or choose "
                "another storage.path"
            ) from None
        finally:
            os.close(descriptor)

    @property
    def is_new(self) -> bool:
        """True where no service has kept anything yet."""
        return not (self.path / "spool").exists()

    def want_marker(self) -> None:
        """Refuse a folder without the marker: StartError says so."""
        marker = self.path / MARKER
        if not marker.exists():
            raise StartError(
                f"{self.path} has no file {MARKER}, so its volume seems not to be mounted: mount "
                f"it; if this is the right folder, make the file: `touch {marker}`"
            )

    def mark(self) -> None:
        """Make the marker where there is none; StartError when the folder cannot be written."""
        marker = self.path / MARKER
        try:
            if not marker.exists():
                marker.write_text(_TEXT, "utf-8")
                sync_folder(self.path)
        except OSError as error:
            raise cannot_write(error) from error


def cannot_write(error: OSError) -> StartError:
    """Return what is wrong with a folder that cannot be made or written."""
    return StartError(
        f"{error.filename}: {error.strerror}: storage.path must be a folder that the service may "
        "write"
    )
