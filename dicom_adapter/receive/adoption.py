"""Reads a stored file back as if it were received now: for one that the ledger does not know."""

from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info

from dicom_adapter.errors import UnreadableInstanceError
from dicom_adapter.model import StoredInstance
from dicom_adapter.receive.part10 import IDENTIFYING, PREAMBLE, Identity, identity_of
from dicom_adapter.receive.pdu import printable_ae_title
from dicom_adapter.receive.spool import made_at
from dicom_adapter.receive.walk import walk_of

_CHUNK = 1024 * 1024
# Of the group length element, which stands before what it counts (PS3.10 section 7.1).
_GROUP_LENGTH_SIZE = 12


def read_back(path: Path, instance_id: str) -> StoredInstance:
    """Return what a file says of its instance; the association that it came by is not known.

    Raises:
        UnreadableInstanceError: it is no whole Part 10 file of ours.
        OSError: it cannot be read.
    """
    meta = _meta_of(path)
    title = printable_ae_title(str(meta.get("ReceivingApplicationEntityTitle", "")))
    if not title:
        raise UnreadableInstanceError("the file does not say which AE title it was sent to")
    syntax = str(meta.TransferSyntaxUID)
    start = len(PREAMBLE) + _GROUP_LENGTH_SIZE + int(meta.FileMetaInformationGroupLength)
    identity, digest, size = _proved(path, start, syntax)
    return StoredInstance(
        id=instance_id,
        ae_title=title,
        association=0,
        calling_ae_title=printable_ae_title(str(meta.get("SourceApplicationEntityTitle", ""))),
        source_address="",
        sop_class_uid=identity.sop_class_uid,
        sop_instance_uid=identity.sop_instance_uid,
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        transfer_syntax_uid=syntax,
        instance_number=identity.instance_number,
        sha256=digest,
        size=size,
        received_at=min(made_at(instance_id), datetime.now(UTC)),
        path=path,
    )


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _meta_of(path: Path) -> FileMetaDataset:
    try:
        meta = read_file_meta_info(path)
        if "TransferSyntaxUID" in meta and "FileMetaInformationGroupLength" in meta:
            return meta
    except OSError:
        raise
    except Exception as error:
        raise UnreadableInstanceError("it is no Part 10 file") from error
    raise UnreadableInstanceError("its file meta information is not complete")


def _proved(path: Path, start: int, syntax: str) -> tuple[Identity, str, int]:
    """Walk a file's data set to its last element; return what it says, its digest and its size."""
    walk, digest, size = walk_of(syntax, IDENTIFYING), sha256(), 0
    with path.open("rb") as file:
        head = file.read(start)
        digest.update(head)
        size += len(head)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            walk.feed(chunk)
    return identity_of(walk.finish()), digest.hexdigest(), size
