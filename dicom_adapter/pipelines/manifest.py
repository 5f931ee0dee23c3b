"""Which files a pipeline has to work on: from the job's manifest, or from the folder by hand."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydicom import dcmread
from pydicom.uid import MediaStorageDirectoryStorage


class PipelineError(Exception):
    """The run cannot go on; the message is the one line that the job's log shows."""


@dataclass(frozen=True)
class Job:
    """The job's id (empty by hand) and, for each series in order, its files in order."""

    id: str
    series: tuple[tuple[Path, ...], ...]


def load_job(folder: Path, environment: Mapping[str, str]) -> Job:
    """Read the manifest that DICOM_ADAPTER_JOB names, or else group the folder's files by series.

    Raises:
        PipelineError: The folder or the manifest cannot be used.
    """
    if not folder.is_dir():
        raise PipelineError("the input folder does not exist")
    manifest = environment.get("DICOM_ADAPTER_JOB", "")
    return _from_manifest(folder, Path(manifest)) if manifest else Job("", _scan(folder))


def _from_manifest(folder: Path, path: Path) -> Job:
    """The job as its manifest has it."""
    try:
        manifest = json.loads(path.read_bytes())
        job = str(manifest["job"]["id"])
        series = tuple(_files(folder, chosen["files"]) for chosen in manifest["inputs"])
    except OSError as error:
        raise PipelineError(f"the job's manifest cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError("the job's manifest is not what a manifest should be") from error
    return Job(job, series)


def _files(folder: Path, entries: Iterable[Mapping[str, Any]]) -> tuple[Path, ...]:
    """The paths of one input's files, all inside the folder and all there."""
    paths = []
    for entry in entries:
        name = PurePosixPath(entry["file"])
        if name.is_absolute() or ".." in name.parts:
            raise PipelineError("the job's manifest names a file outside the input folder")
        path = folder / name
        if not path.is_file():
            raise PipelineError("the job's manifest names a file that is not there")
        paths.append(path)
    return tuple(paths)


def _scan(folder: Path) -> tuple[tuple[Path, ...], ...]:
    """The folder's DICOM files by SeriesInstanceUID; what is no Part 10 file is passed over."""
    series: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = dcmread(path, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
            if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
                continue
            uid = str(header.get("SeriesInstanceUID", ""))
        except Exception:  # noqa: BLE001, S112 - a folder may hold anything, and pydicom raise it
            continue
        series.setdefault(uid, []).append(path)
    return tuple(map(tuple, series.values()))
