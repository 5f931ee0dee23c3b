"""The folder that holds received instances, each under a name of our own.

    incoming/<id>.part            still being received; swept when the service starts
    incoming/<n>/<id>.part        the same, by the nth receiving process; swept when it starts
    instances/<xxxxxxxx>/<id>.dcm stored, durable and never overwritten; <xxxxxxxx> begins the id
    aside/<id>.dcm                found there, and no instance; for a person to look at

Nothing that a peer sent ever becomes a part of a path. An id begins with the time, so that what
comes together lies together: one folder is flushed for all of it.
"""

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from dicom_adapter.errors import StartError
from dicom_adapter.files import FILE_MODE, Flush, make_folder

T = TypeVar("T")

# Of an id's 32 hexadecimal digits, these count milliseconds since 1970.
_TIME_DIGITS = 12
_RANDOM_BYTES = 5
_NUMBER_DIGITS = 10
# So many of them name the folder: another one for each 65 seconds.
FOLDER_DIGITS = 8
# The kernel takes 1024 at a time (IOV_MAX); tiny ones are better put together.
_MOST_PIECES = 256
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Part:
    """A file that is being received: not durable, and not yet under its final name."""

    def __init__(self, part_id: str, path: str) -> None:
        self.id = part_id
        self.path = path
        self.size = 0
        self._digest = sha256()
        self._descriptor = os.open(path, _NEW_FILE, FILE_MODE)

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append bytes to the file and to its digest; OSError when the disk does not take them."""
        if len(pieces) > _MOST_PIECES:
            pieces = [b"".join(pieces)]
        size = 0
        for piece in pieces:
            self._digest.update(piece)
            size += len(piece)
        written = os.writev(self._descriptor, pieces)
        self.size += size
        if written < size:
            self._write_rest(b"".join(pieces), written)

    def _write_rest(self, data: bytes, written: int) -> None:
        # A full disk takes a part first, and says so only when asked again.
        while written < len(data):
            written += os.write(self._descriptor, memoryview(data)[written:])

    def flush(self, how: Flush) -> None:
        """Make the bytes durable, though not yet the name."""
        how.file(self._descriptor)

    def discard(self) -> None:
        """Forget the file under this name; one that was kept lives on under its final name."""
        # What a broken disk keeps of it is swept at the next start; no other one may suffer by it.
        with suppress(OSError):
            os.close(self._descriptor)
        with suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 - see Spool


class Spool:
    """Stores, finds and removes the files of received instances."""

    def __init__(self, folder: Path, flush: Flush, process: int = 0) -> None:
        """Name the folders.

        Args:
            folder: The spool's own.
            flush: How what is stored is made to last.
            process: Which of several receiving processes this is; 0 for the service itself.
        """
        self.folder = folder
        self.flush = flush
        self._incoming = folder / "incoming" / (str(process) if process else "")
        self._instances = folder / "instances"
        self._aside = folder / "aside"
        # As text: making path objects is a tenth of the work for a small image.
        self._incoming_text = str(self._incoming)
        self._instances_text = str(self._instances)
        self._ids = Ids()
        # Of the folders of instances, the one that was used last: its name is durable.
        self._durable = ""

    def open(self) -> None:
        """Make the folders, and sweep what was half received when the service last ended.

        Raises:
            StartError: the folders cannot be made or written.
        """
        try:
            for folder in (self._incoming, self._instances):
                make_folder(folder)
            for part in self._incoming.rglob("*.part"):
                part.unlink()
        except OSError as error:
            raise StartError(
                f"{error.filename}: {error.strerror}: storage.path must be a folder that the "
                "service may write"
            ) from error

    def path_of(self, instance_id: str) -> Path:
        """Return where the file of an instance lies, whether it is there or not."""
        return Path(self._file_of(instance_id))

    def _file_of(self, instance_id: str) -> str:
        return f"{self._instances_text}/{instance_id[:FOLDER_DIGITS]}/{instance_id}.dcm"

    def new_id(self, now: datetime) -> str:
        """Return an id that nothing else has; a later one is greater."""
        return self._ids.new(now)

    def begin(self, instance_id: str) -> Part:
        """Open a file to receive into; OSError when there is no room for one more."""
        return Part(instance_id, f"{self._incoming_text}/{instance_id}.part")

    @contextmanager
    def receive(self, instance_id: str) -> Iterator[Part]:
        """Open a file to receive into; unless it was kept, it is gone after the block."""
        part = self.begin(instance_id)
        try:
            yield part
        finally:
            part.discard()

    def keep(self, parts: Sequence[Part]) -> list[OSError | None]:
        """Make received files durable under their final names; return what went wrong with each.

        The bytes are flushed before a name exists, and the names before this returns, so a power
        cut leaves a whole file or none. What cannot be kept is not there. No flush that failed is
        tried again: the kernel may have dropped the very pages that it could not write.
        """
        errors: list[OSError | None] = [_error_of(self._keep, part) for part in parts]
        for folder in {
            part.id[:FOLDER_DIGITS]
            for part, error in zip(parts, errors, strict=True)
            if error is None
        }:
            error = _error_of(self.flush.folder, self._instances / folder)
            if error is None:
                continue
            for at, part in enumerate(parts):
                if errors[at] is None and part.id.startswith(folder):
                    # The sender is told that it was not stored, so nothing may stay.
                    with suppress(OSError):
                        self.path_of(part.id).unlink()
                    errors[at] = error
        return errors

    def _keep(self, part: Part) -> None:
        part.flush(self.flush)
        file = self._file_of(part.id)
        # A link, not a rename: it refuses to replace a file that is there.
        while True:
            self._want_folder(part.id[:FOLDER_DIGITS])
            try:
                os.link(part.path, file)
            except FileNotFoundError:
                # The reclaimer has just removed the folder since it was empty.
                if not os.path.exists(part.path):  # noqa: PTH110 - see Spool
                    raise
                self._durable = ""
            else:
                return

    def _want_folder(self, name: str) -> None:
        """Make a folder of instances where there is none, and its name durable.

        That also where it is there: whoever has made it may not have flushed it yet.
        """
        if name == self._durable:
            return
        folder = self._instances / name
        make_folder(folder)
        try:
            self.flush.folder(self._instances)
        except OSError:
            # No flush is tried again: the next one has it made anew.
            remove_if_empty(folder)
            raise
        self._durable = name

    def remove(self, instance_id: str) -> None:
        """Unlink the file of an instance, and its folder if that is empty now."""
        path = self.path_of(instance_id)
        path.unlink(missing_ok=True)
        # Flushed before the ledger forgets the file, and before the folder itself may go.
        if path.parent.exists():
            self.flush.folder(path.parent)
        remove_if_empty(path.parent)

    def merge(self, instance_id: str, other_id: str) -> None:
        """Have one file of two with the same bytes: the other one, which is put back if it is lost.

        OSError when it cannot be put back.
        """
        file, other = self._file_of(instance_id), self.path_of(other_id)
        if not other.exists():
            make_folder(other.parent)
            self.flush.folder(self._instances)
            with suppress(FileExistsError):
                os.link(file, other)
            self.flush.folder(other.parent)
        self.remove(instance_id)

    def folders(self) -> list[str]:
        """Return the names of the folders of stored instances, oldest first."""
        return sorted(entry.name for entry in os.scandir(self._instances) if entry.is_dir())

    def files(self, folder: str) -> dict[str, os.stat_result]:
        """Return the files in such a folder: an instance's by its id, any other by its name."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._instances / folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found[_id_in(entry.name, folder)] = entry.stat(follow_symlinks=False)
        return found

    def set_aside(self, instance_id: str) -> None:
        """Move an instance's file out of the way, for a person to look at."""
        make_folder(self._aside)
        path = self.path_of(instance_id)
        path.rename(self._aside / path.name)
        for folder in (self._aside, path.parent):
            self.flush.folder(folder)

    def free(self) -> int:
        """Return the bytes that are free on the spool's volume."""
        return shutil.disk_usage(self._instances).free

    def used_fraction(self) -> float:
        """Return how full the spool's volume is, 0 to 1, as `df` has it: of what we may use."""
        usage = shutil.disk_usage(self._instances)
        return usage.used / (usage.used + usage.free)


class Ids:
    """Makes ids that nothing else has, 32 hexadecimal digits, in the order of their making.

    They begin with the time; of the same millisecond, a number tells them apart here, and a random
    one from those that another process or another start of this one makes.
    """

    def __init__(self) -> None:
        self._origin = os.urandom(_RANDOM_BYTES).hex()
        self._numbers = itertools.count()

    def new(self, now: datetime) -> str:
        """Return another id, of this time."""
        milliseconds = int(now.timestamp() * 1000)
        number = next(self._numbers)
        return f"{milliseconds:0{_TIME_DIGITS}x}{self._origin}{number:0{_NUMBER_DIGITS}x}"


def made_at(instance_id: str) -> datetime:
    """Return when an id was made."""
    return datetime.fromtimestamp(int(instance_id[:_TIME_DIGITS], 16) / 1000, UTC)


def is_id(text: str) -> bool:
    """Tell whether a text is an id as they are made here."""
    return _ID.fullmatch(text) is not None


def _id_in(name: str, folder: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    is_ours = f"{dot}{suffix}" == ".dcm" and is_id(stem) and stem.startswith(folder)
    return stem if is_ours else name


def remove_if_empty(folder: Path) -> None:
    """Remove a folder when nothing is in it."""
    # Not empty, or gone already: both are as they should be.
    with suppress(OSError):
        folder.rmdir()


def _error_of(function: Callable[[T], None], argument: T) -> OSError | None:
    try:
        function(argument)
    except OSError as error:
        return error
    return None
