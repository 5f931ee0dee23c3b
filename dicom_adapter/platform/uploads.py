"""Instances that were uploaded by an adapter that shares no disk with this platform."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.errors import InvalidArgumentError, UnavailableError
from dicom_adapter.files import FILE_MODE, make_folder, sync_folder
from dicom_adapter.ledger import Ledger, uploads
from dicom_adapter.model import InputFile

# A preamble of 128 bytes, and the four that say what it is (PS3.10 7.1).
SHORTEST_PART_10 = 132
_MAGIC = b"DICM"
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """Takes uploads in and finds them again."""

    def __init__(self, folder: Path, ledger: Ledger, clock: Clock) -> None:
        self._folder = folder
        self._ledger = ledger
        self._clock = clock

    def open(self) -> None:
        """Make the folder, and sweep what the ledger does not know: uploads that broke off."""
        make_folder(self._folder)
        with self._ledger.read() as tx:
            known = {self._path(*upload) for upload in uploads.every(tx)}
        for path in self._folder.iterdir():
            if path not in known:
                path.unlink()

    def receive(self, file: InputFile, size: int, chunks: Iterable[bytes]) -> None:
        """Store an upload durably.

        Raises:
            InvalidArgumentError: the id or sha256 is malformed, or the bytes are not as announced.
            UnavailableError: it cannot be stored now.
        """
        check(file, "header.instance")
        if size < SHORTEST_PART_10:
            raise InvalidArgumentError("header.size", "is less than any Part 10 file has")
        part = self._folder / f"{uuid4().hex}.part"
        try:
            self._write(part, file, size, chunks)
            part.rename(self._path(file.instance_id, file.sha256))
            sync_folder(self._folder)
        except OSError as error:
            raise UnavailableError(f"the upload cannot be stored: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        with self._ledger.write() as tx:
            uploads.add(tx, file.instance_id, file.sha256, size, self._clock.now())

    def _write(self, part: Path, file: InputFile, size: int, chunks: Iterable[bytes]) -> None:
        digest, written = sha256(), 0
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as out:
            for chunk in chunks:
                digest.update(chunk)
                written += len(chunk)
                if written > size:
                    break
                out.write(chunk)
            out.flush()
            os.fdatasync(out.fileno())
        if written != size or digest.hexdigest() != file.sha256:
            raise InvalidArgumentError(
                "chunk", "the bytes do not have the announced size and sha256: upload them again"
            )
        with part.open("rb") as stream:
            if stream.read(SHORTEST_PART_10)[-len(_MAGIC) :] != _MAGIC:
                raise InvalidArgumentError("chunk", "the bytes are not a Part 10 file")

    def places(self, tx: Connection, files: Sequence[InputFile]) -> dict[tuple[str, str], Path]:
        """Return where those files lie that were uploaded, by instance id and sha256."""
        here = uploads.present(tx, [file.instance_id for file in files])
        return {upload: self._path(*upload) for upload in here}

    def missing(self, files: Sequence[InputFile]) -> list[InputFile]:
        """Return those files that are not here, and note that the others are needed now."""
        now = self._clock.now()
        with self._ledger.write() as tx:
            here = {upload for upload, path in self.places(tx, files).items() if path.exists()}
            for instance_id, sha256_ in here:
                uploads.touch(tx, instance_id, sha256_, now)
        return [file for file in files if file.key not in here]

    def reclaim(self, before: datetime, limit: int) -> int:
        """Remove uploads that no job has asked for since a time; return how many."""
        # In one transaction: nobody is told meanwhile that one of them is here.
        with self._ledger.write() as tx:
            unused = uploads.unused_since(tx, before, limit)
            for instance_id, sha256_ in unused:
                self._path(instance_id, sha256_).unlink(missing_ok=True)
            uploads.remove(tx, unused)
        return len(unused)

    def _path(self, instance_id: str, sha256_: str) -> Path:
        return self._folder / f"{instance_id}-{sha256_}.dcm"


def check(file: InputFile, field: str) -> None:
    """Refuse a reference that no receiver of ours could have made; it becomes part of a path.

    Raises:
        InvalidArgumentError: the id or the sha256 is malformed; `field` is where it stood.
    """
    if not _ID.fullmatch(file.instance_id):
        raise InvalidArgumentError(f"{field}.id", "must be 1 to 64 letters, digits or dashes")
    if not _SHA256.fullmatch(file.sha256):
        raise InvalidArgumentError(f"{field}.sha256", "must be 64 lower-case hexadecimal digits")
