"""Brings the outputs of a server's job onto this disk, and trusts nothing that it says of them."""

import os
from hashlib import sha256
from pathlib import Path, PurePosixPath

from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.files import make_folder
from dicom_adapter.model import JobOutput
from dicom_adapter.rpc.client import Client


class ForeignOutputError(DicomAdapterError):
    """An output is not what its server says, or would lie where it must not."""


def fetch_output(client: Client, job_id: str, output: JobOutput, folder: Path) -> None:
    """Write one output of a job below a folder, where nothing of its path is yet.

    Raises:
        ForeignOutputError: its path leads out of the folder, or it has other bytes than announced.
        OSError: it cannot be written; nothing of it is left.
        DicomAdapterError: as `Client.errors` does.
    """
    target = folder / checked(output.path)
    make_folder(target.parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(target, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest, size = sha256(), 0
            for chunk in client.output(job_id, output.path, output.size):
                digest.update(chunk)
                size += len(chunk)
                if size > output.size:
                    break
                file.write(chunk)
        _compare(output, size, digest.hexdigest())
    except BaseException:
        target.unlink()
        raise


def _compare(output: JobOutput, size: int, digest: str) -> None:
    if (size, digest) != (output.size, output.sha256):
        raise ForeignOutputError(
            f"output '{output.path}' does not have the size and sha256 that were told of it"
        )


def checked(path: str) -> PurePosixPath:
    """Return the path of an output, which another machine has said.

    Raises:
        ForeignOutputError: it leads out of the folder, or is none.
    """
    found = PurePosixPath(path)
    is_plain = str(found) == path and path != "." and "\0" not in path
    if not is_plain or found.is_absolute() or ".." in found.parts:
        raise ForeignOutputError(f"output {path!r} has a path that no output can have")
    return found
