"""The folder of a job: its inputs, what its pipeline sees, its log and its outputs.

<jobs>/<job id>/
    input/001/000001.dcm   one folder a series, in the job's order; Part 10 files, nothing else
    job.json               the manifest
    progress.jsonl         what the pipeline reports
    work/                  the pipeline's HOME, TMPDIR and working directory
    staging/               what it writes; becomes output/ when the job finishes
    output/
    provenance.json        how output/ was made
    superseded/2/          what was output/, by the attempt that made it, before the job ran again
    superseded/2.provenance.json
    log.txt                and log.txt.8388608, ...: see `joblog`

Of a job of several items, which run one after another, each has a folder within: input/0002,
staging/0002, output/0002, provenance/0002.json, superseded/2/0002.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from uuid import uuid4

from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.files import make_folder, sync_folder
from dicom_adapter.model import InputFile, Job, JobInput, JobItem, JobOutput
from dicom_adapter.platform import joblog
from dicom_adapter.platform.tree import move, remove, share

#: Where instances lie, by id and sha256.
Sources = Mapping[tuple[str, str], Path]


class BrokenInputError(DicomAdapterError):
    """An input is gone, or no longer has the bytes that were submitted."""


class InvalidOutputError(DicomAdapterError):
    """The output holds what cannot be kept."""


class Workspace:
    """The folder of one job, as one of its items has it where there are several."""

    def __init__(self, folder: Path, item: int | None = None) -> None:
        #: The item's own part of the paths; empty for a job's only one, and for all of them.
        self.part = "" if item is None else f"{item:04d}"
        self.folder = folder
        self.input = folder / "input" / self.part
        self.manifest = folder / "job.json"
        self.progress = folder / "progress.jsonl"
        self.work = folder / "work"
        self.staging = folder / "staging" / self.part
        self.output = folder / "output" / self.part
        # Beside the outputs, not among them: whatever a pipeline calls its own stays what it is.
        self.provenance = folder / "provenance.json"
        if self.part:
            self.provenance = folder / "provenance" / f"{self.part}.json"
        self.staged_provenance = folder / "provenance.json.part"
        self.superseded = folder / "superseded"
        self.log = folder / "log.txt"

    def of_item(self, item: JobItem, count: int) -> "Workspace":
        """Return it as one of a job's so many items has it."""
        return self if count == 1 else Workspace(self.folder, item.number)

    def take_inputs(self, inputs: Sequence[JobInput], sources: Sources) -> None:
        """Put every input file into the workspace, without copying, and make that durable.

        Raises:
            BrokenInputError: a file is not there.
        """
        make_folder(self.input)
        for series, name, file in _places(inputs):
            target = self.input / series / name
            make_folder(target.parent)
            try:
                share(sources[file.key], target)
            except (KeyError, FileNotFoundError) as error:
                # Unknown, or reclaimed this very moment.
                raise BrokenInputError(f"instance {file.instance_id} is not here") from error
        above = (self.input, self.input.parent, self.folder, self.folder.parent)
        for folder in dict.fromkeys((*self.input.iterdir(), *above)):
            sync_folder(folder)

    def sources(self, inputs: Sequence[JobInput]) -> dict[tuple[str, str], Path]:
        """Return where its own input files lie, those that are there."""
        places = {file.key: self.input / series / name for series, name, file in _places(inputs)}
        return {key: path for key, path in places.items() if path.exists()}

    def check_inputs(self, inputs: Sequence[JobInput]) -> None:
        """Compare every input file with its sha256, and remove what an attempt put beside them.

        Raises:
            BrokenInputError: one is gone or has other bytes.
        """
        expected = set()
        for series, name, file in _places(inputs):
            path = self.input / series / name
            if path.is_symlink() or not path.is_file():
                raise BrokenInputError(f"input {series}/{name} is gone")
            with path.open("rb") as stream:
                found = file_digest(stream, "sha256").hexdigest()
            if found != file.sha256:
                raise BrokenInputError(
                    f"input {series}/{name} does not have the bytes that were submitted"
                )
            expected |= {path, path.parent}
        for path in sorted(self.input.rglob("*"), reverse=True):
            if path not in expected:
                path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()

    def prepare(self, job: Job, item: JobItem, inputs: Sequence[JobInput]) -> None:
        """Make what an attempt begins with: a manifest, and nothing of the attempt before it."""
        self.discard_attempt()
        for folder in (self.work, self.staging):
            make_folder(folder)
        self.progress.touch(mode=0o600)
        self.manifest.write_text(json.dumps(_manifest(job, item, inputs), indent=2), "utf-8")

    def discard_attempt(self) -> None:
        """Remove what an attempt that did not finish has left; the log stays."""
        self.discard_staged()
        for path in (self.output, self.provenance, self.progress):
            remove(path)

    def discard_staged(self) -> None:
        """Remove what never was an output."""
        for path in (self.work, self.staging, self.staged_provenance):
            remove(path)

    def collect_outputs(self) -> tuple[JobOutput, ...]:
        """Return what the pipeline has staged, flushed to the disk.

        Raises:
            InvalidOutputError: something is neither a file nor a folder, or cannot be read.
        """
        if self.staging.is_symlink() or not self.staging.is_dir():
            raise InvalidOutputError("the output folder itself was removed or replaced")
        found = [self._collect(path) for path in sorted(self.staging.rglob("*"))]
        sync_folder(self.staging)
        return tuple(output for output in found if output is not None)

    def _collect(self, path: Path) -> JobOutput | None:
        relative = path.relative_to(self.staging).as_posix()
        shown = relative.encode("utf-8", "backslashreplace").decode()
        if shown != relative:
            raise InvalidOutputError(f"output '{shown}' has a name that is not UTF-8")
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InvalidOutputError(f"output '{relative}' is neither a file nor a folder")
        try:
            if path.is_dir():
                sync_folder(path)
                return None
            with path.open("rb") as stream:
                digest = file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
        except PermissionError as error:
            raise InvalidOutputError(f"output '{relative}' cannot be read") from error
        # As it lies below the job's output folder.
        place = f"{self.part}/{relative}" if self.part else relative
        return JobOutput(place, path.stat().st_size, digest)

    def stage_provenance(self, provenance: Mapping[str, object]) -> None:
        """Write how the staged outputs were made, flushed to the disk."""
        # What lies there is the pipeline's: no link of its making is followed.
        for path in (self.provenance, self.staged_provenance):
            remove(path)
        text = json.dumps(provenance, indent=2)
        with self.staged_provenance.open("x", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
            stream.flush()
            os.fsync(stream.fileno())

    def commit_outputs(self) -> None:
        """Put what is staged where the job's outputs belong, in the transaction that says so.

        Again, too: where the ledger could not be written after that, they lie there already.
        """
        for staged, place in (
            (self.staging, self.output),
            (self.staged_provenance, self.provenance),
        ):
            if staged.exists():
                make_folder(place.parent)
                staged.rename(place)
                sync_folder(place.parent)
        sync_folder(self.folder)

    def supersede_outputs(self, attempt: int) -> None:
        """Put what an attempt has put out aside, in the transaction that says so."""
        moved = [move(path, place) for path, place in self._places_aside(attempt)]
        if any(moved):
            self._sync_moves(attempt)

    def restore_outputs(self, attempt: int) -> None:
        """Put what an attempt has put out back, where the transaction was not committed."""
        moved = [move(place, path) for path, place in self._places_aside(attempt)]
        if any(moved):
            self._sync_moves(attempt)

    def _sync_moves(self, attempt: int) -> None:
        places = [path.parent for pair in self._places_aside(attempt) for path in pair]
        for folder in dict.fromkeys((*places, self.folder)):
            if folder.exists():
                sync_folder(folder)

    def _places_aside(self, attempt: int) -> tuple[tuple[Path, Path], ...]:
        aside = self.superseded / str(attempt) / self.part
        within = f".{self.part}" if self.part else ""
        record = self.superseded / f"{attempt}{within}{_RECORD}"
        return (self.output, aside), (self.provenance, record)

    def last_log_line(self) -> str:
        """Return the last line of the log that says anything, without what moves a cursor."""
        return joblog.last_line(self.log)

    def reclaim(self, part: str) -> None:
        """Remove the inputs, outputs or logs, and the whole folder once it is empty."""
        if part == "logs":
            files = [part for _, part in joblog.parts_of(self.log)]
            for path in (*files, self.manifest, self.progress, self.work, self.staging):
                remove(path)
        elif part == "outputs":
            # How they were made stays known as long as the job: they may be in a PACS by now.
            for path in (self.output, *self.superseded.glob("*")):
                if not path.name.endswith(_RECORD):
                    remove(path)
            with suppress(OSError):
                self.superseded.rmdir()
        else:
            remove(self.input)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()


# Behind an attempt's number: how its outputs were made.
_RECORD = ".provenance.json"
# What the name of a workspace ends with whose job is being deleted.
_CONDEMNED = ".deleted"
# Of an empty file beside the workspace whose outputs are being set aside.
_SUPERSEDING = ".superseding"


class Workspaces:
    """The folder of all workspaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the folder."""
        make_folder(self.folder)

    def of(self, job_id: str) -> Workspace:
        """Return the workspace of a job, whether it is there or not."""
        return Workspace(self.folder / job_id)

    def all_ids(self) -> list[str]:
        """Return the ids of the jobs that have a workspace."""
        return [name for name in self._names() if not name.endswith(_SUPERSEDING)]

    def _names(self) -> list[str]:
        # Of tens of thousands, at each start: a Path of each would take half a second.
        with os.scandir(self.folder) as entries:
            return [entry.name for entry in entries]

    @contextmanager
    def superseding(self, job_id: str) -> Iterator[None]:
        """Let a crash in the block be seen by the next start: a job's outputs are set aside in it.

        There, to look into the folder of each job would take a second for ten thousand of them.
        """
        # Of its own: another retry of the job, which is refused, ends before this one.
        marker = self.folder / f"{job_id}.{uuid4().hex}{_SUPERSEDING}"
        marker.touch()
        sync_folder(self.folder)
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def cut_off(self) -> list[str]:
        """Return the ids of the jobs whose outputs a crash may have left aside."""
        return [name.partition(".")[0] for name in self._ending_in(_SUPERSEDING)]

    def agreed(self, job_id: str) -> None:
        """Note that a job's outputs lie where they should."""
        for marker in self.folder.glob(f"{job_id}.*{_SUPERSEDING}"):
            marker.unlink()

    def _ending_in(self, suffix: str) -> list[str]:
        return [name.removesuffix(suffix) for name in self._names() if name.endswith(suffix)]

    def was_started(self, job_id: str) -> bool:
        """Return whether an attempt has left anything in a workspace that nobody else has."""
        folder = self.folder / job_id
        left = ("output", "provenance.json", "provenance", "superseded", "log.txt", "job.json")
        return any(os.path.lexists(folder / name) for name in left)

    def condemn(self, job_id: str) -> None:
        """Have a workspace go, once the ledger has forgotten its job: by a name that says so."""
        with suppress(FileNotFoundError):
            (self.folder / job_id).rename(self.folder / f"{job_id}{_CONDEMNED}")

    def pardon(self, job_id: str) -> None:
        """Have a condemned workspace stay after all."""
        with suppress(FileNotFoundError):
            (self.folder / f"{job_id}{_CONDEMNED}").rename(self.folder / job_id)

    def condemned(self) -> list[str]:
        """Return the ids of the jobs whose workspaces are to go."""
        return self._ending_in(_CONDEMNED)

    def remove_condemned(self, job_id: str) -> None:
        """Remove a condemned workspace whole."""
        remove(self.folder / f"{job_id}{_CONDEMNED}")

    def remove(self, job_id: str) -> None:
        """Remove a workspace whole."""
        if (self.folder / job_id).is_dir():
            remove(self.folder / job_id)


def _places(inputs: Sequence[JobInput]) -> Iterator[tuple[str, str, InputFile]]:
    for number, series in enumerate(inputs, start=1):
        for position, file in enumerate(series.files, start=1):
            yield f"{number:03d}", f"{position:06d}.dcm", file


def _manifest(job: Job, item: JobItem, inputs: Sequence[JobInput]) -> dict[str, object]:
    return {
        "job": {"id": job.id, "name": job.name},
        "item": {"id": item.id, "number": item.number, "of": len(job.items)},
        "pipeline": job.pipeline,
        "arguments": dict(job.arguments),
        "inputs": described(inputs),
    }


def described(inputs: Sequence[JobInput]) -> list[dict[str, object]]:
    """Return inputs, in their order, as the files beside them tell of them."""
    places = _places(inputs)
    return [
        {
            "study": series.study,
            "series": series.series,
            "range": series.range,
            "files": [_manifest_file(*next(places)) for _ in series.files],
        }
        for series in inputs
    ]


def _manifest_file(series: str, name: str, file: InputFile) -> dict[str, str]:
    return {
        "file": f"{series}/{name}",
        "sop_instance_uid": file.sop_instance_uid,
        "sha256": file.sha256,
    }
