"""What can be asked of the platform; gRPC, and so the adapter and the command line, call these."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dicom_adapter.clock import Clock
from dicom_adapter.config import Pipeline
from dicom_adapter.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UncertainError,
    WrongStateError,
)
from dicom_adapter.ledger import Ledger, events, jobs, queue, stock
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.lifecycle import TERMINAL, JobState
from dicom_adapter.model import (
    Event,
    InputFile,
    ItemState,
    Job,
    JobItem,
    JobRequest,
    JobStep,
    Resources,
    StepState,
    safe_name,
)
from dicom_adapter.platform.uploads import Uploads, check
from dicom_adapter.platform.workspace import BrokenInputError, Workspace, Workspaces

LONGEST_REQUEST_ID = 128
LARGEST_PAGE = 1000
DEFAULT_PAGE = 100
# What a page ends with: the number of its last job, which fits into the ledger's integers.
_TOKEN = re.compile("[0-9]{0,18}")
LOG_CHUNK = 64 * 1024
# A log grows without a commit, so a follower looks again this often while the job runs.
FOLLOW_SECONDS = 0.5
# So often it is looked whether anybody watches still.
WATCH_SECONDS = 1.0
# Most commits are of no job: those who watch look at what some of them have changed at once.
REST_SECONDS = 0.1

DEFAULT_PROJECT = "default"

log = structlog.get_logger()


@dataclass(frozen=True)
class JobPage:
    """A page of jobs, and the token of the next one, empty on the last."""

    jobs: tuple[Job, ...]
    next_token: str


def version_of(pipeline: Pipeline) -> str:
    """Return a hash of what a pipeline runs: one version is one command."""
    definition = json.dumps([pipeline.command, pipeline.steps], separators=(",", ":"))
    return sha256(definition.encode()).hexdigest()[:12]


class PipelineOperations:
    """Shows what can be run."""

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self.reload(pipelines)

    def reload(self, pipelines: Iterable[Pipeline]) -> None:
        """Have these from now on; a job keeps the definition that it was made of."""
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}

    def listed(self) -> list[Pipeline]:
        """Return every pipeline, by name."""
        return sorted(self._pipelines.values(), key=lambda pipeline: pipeline.name)

    def get(self, name: str) -> Pipeline:
        """Return a pipeline.

        Raises:
            NotFoundError: there is none of that name.
        """
        # Once: they may be exchanged meanwhile.
        pipelines = self._pipelines
        if name not in pipelines:
            known = ", ".join(sorted(pipelines)) or "none at all"
            raise NotFoundError(f"the platform has no pipeline '{name}'; it has {known}")
        return pipelines[name]


class JobOperations:
    """Makes jobs and shows them."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        pipelines: PipelineOperations,
        workspaces: Workspaces,
        uploads: Uploads,
        *,
        locate: Callable[[str], Path],
        submitted: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pipelines = pipelines
        self._workspaces = workspaces
        self._uploads = uploads
        self._locate = locate
        self._submitted = submitted

    # Instances

    def missing(self, files: Sequence[InputFile]) -> list[InputFile]:
        """Return those of the files that must be uploaded before a job can be made of them."""
        with self._ledger.read() as tx:
            kept = self._kept(tx, files)
        absent = [file for file in files if file.key not in kept]
        return self._uploads.missing(absent) if absent else []

    def upload(self, file: InputFile, size: int, chunks: Iterable[bytes]) -> None:
        """Store an instance; see `Uploads.receive`."""
        self._uploads.receive(file, size, chunks)

    def _kept(self, tx: Connection, files: Sequence[InputFile]) -> dict[tuple[str, str], Path]:
        keys = stock.kept(tx, [file.instance_id for file in files])
        places = {key: self._locate(key[0]) for key in keys}
        # Looked for on the disk as well: a person may have removed it there.
        return {key: path for key, path in places.items() if path.exists()}

    def _places(self, files: Sequence[InputFile]) -> dict[tuple[str, str], Path]:
        with self._ledger.read() as tx:
            return {**self._uploads.places(tx, files), **self._kept(tx, files)}

    # Jobs

    def submit(self, request: JobRequest) -> Job:
        """Make a job, durable with its inputs when this returns.

        The same request again returns the job that it made.

        Raises:
            InvalidArgumentError: a field is wrong; names it.
            NotFoundError: the platform has no such pipeline.
            AlreadyExistsError: the request id was used for another request.
            WrongStateError: an instance is not here; upload it and submit again.
        """
        _check(request)
        digest = _digest(request)
        earlier = self._earlier(request, digest)
        if earlier is not None:
            return earlier
        job = self._make(request, digest)
        log.info(
            "job submitted",
            action="job.submitted",
            job=job.name,
            pipeline=job.pipeline,
            instances=job.instances,
            priority=job.priority.label,
        )
        self._submitted()
        return job

    def _make(self, request: JobRequest, digest: str) -> Job:
        job = self._new_job(request, self._clock.now())
        workspace = self._workspaces.of(job.id)
        try:
            workspace.take_inputs(request.inputs, self._places(request.files))
            with self._ledger.write() as tx:
                return queue.add(tx, job, request.inputs, request.request_id, digest)
        except IntegrityError:
            self._workspaces.remove(job.id)
            earlier = self._earlier(request, digest)
            if earlier is None:
                raise
            # The same request came twice at once, and the other one was first.
            return earlier
        except UncertainError:
            # A crash may make the job after all: the next start knows.
            raise
        except BrokenInputError as error:
            self._workspaces.remove(job.id)
            raise WrongStateError(f"{error}: upload it, then submit again") from error
        except BaseException:
            self._workspaces.remove(job.id)
            raise

    def _earlier(self, request: JobRequest, digest: str) -> Job | None:
        with self._ledger.read() as tx:
            found = jobs.of_request(tx, request.request_id)
        if found is None:
            return None
        job, earlier_digest = found
        if earlier_digest != digest:
            raise AlreadyExistsError(
                f"request_id '{request.request_id}' has made the job {job.name} of another "
                "request: use an id of its own for each"
            )
        return job

    def _new_job(self, request: JobRequest, now: datetime) -> Job:
        pipeline = self._pipelines.get(request.pipeline)
        resources = pipeline.resources
        return Job(
            id=uuid4().hex,
            name=safe_name(request.name),
            project=DEFAULT_PROJECT,
            pipeline=pipeline.name,
            pipeline_version=version_of(pipeline),
            state=JobState.IN_QUEUE,
            reason="",
            priority=request.priority,
            ae_title=request.ae_title,
            instances=sum(len(series.files) for series in request.inputs),
            created_at=now,
            started_at=None,
            finished_at=None,
            arguments=request.arguments,
            supersedes=request.supersedes,
            command=pipeline.command,
            timeout=pipeline.timeout,
            cancel_policy=pipeline.cancel,
            requested=Resources(resources.cpus, resources.memory, resources.gpus),
            used=None,
            attempts=0,
            exit_code=None,
            error="",
            items=(JobItem(uuid4().hex, ItemState.IN_QUEUE, ()),),
            steps=tuple(JobStep(name, StepState.WAITING, 0.0) for name in pipeline.steps),
        )

    def get(self, id_or_name: str) -> Job:
        """Return a job; NotFoundError when there is none."""
        with self._ledger.read() as tx:
            return jobs.get(tx, id_or_name)

    def history(self, id_or_name: str) -> list[Event]:
        """Return every move of a job, the oldest first; of a deleted one by its id.

        Raises:
            NotFoundError: there is none, and never was.
        """
        with self._ledger.read() as tx:
            try:
                job_id = jobs.id_of(tx, id_or_name)
            except NotFoundError:
                job_id = id_or_name
            found = [event for event in events.of_subject(tx, job_id) if event.kind == jobs.KIND]
        if not found:
            raise NotFoundError(f"no job has, or had, the id or name '{id_or_name}'")
        return found

    def listed(self, wanted: JobFilter, page_size: int, token: str) -> JobPage:
        """Return a page of jobs, the newest first.

        Raises:
            InvalidArgumentError: the page size is negative, or the token none that this gave.
        """
        if page_size < 0:
            raise InvalidArgumentError("page_size", "must not be negative")
        if not _TOKEN.fullmatch(token):
            raise InvalidArgumentError("page_token", "must be the one of the page before")
        size = min(page_size or DEFAULT_PAGE, LARGEST_PAGE)
        with self._ledger.read() as tx:
            page, after = jobs.listed(tx, wanted, size, int(token) if token else None)
        return JobPage(tuple(page), "" if after is None else str(after))

    def watch(
        self, id_or_name: str, after_event: int, active: Callable[[], bool]
    ) -> Iterator[tuple[int, Job]]:
        """Yield each change of one job, or of all of them, with its event number, as they happen.

        A job that is watched alone is yielded at once, on each step of it too, and the iteration
        ends with the job.
        """
        if id_or_name:
            return self._watch_one(self.get(id_or_name).id, active)
        return self._watch_all(after_event, active)

    def _watch_one(self, job_id: str, active: Callable[[], bool]) -> Iterator[tuple[int, Job]]:
        shown: Job | None = None
        while active():
            commits = self._ledger.commits
            with self._ledger.read() as tx:
                job, number = jobs.get(tx, job_id), events.last_number(tx)
            if job != shown:
                yield number, job
                shown = job
            if job.state in TERMINAL:
                return
            self._wait(commits, WATCH_SECONDS)

    def _watch_all(self, after: int, active: Callable[[], bool]) -> Iterator[tuple[int, Job]]:
        with self._ledger.read() as tx:
            seen = after or events.last_number(tx)
        while active():
            commits = self._ledger.commits
            with self._ledger.read() as tx:
                news = events.after(tx, seen, jobs.KIND)
                known = jobs.known(tx, [event.subject for event in news])
                changes = [
                    (event.number, jobs.get(tx, event.subject))
                    for event in news
                    if event.subject in known
                ]
            yield from changes
            if news:
                seen = news[-1].number
            else:
                self._wait(commits, WATCH_SECONDS)

    def logs(self, id_or_name: str, *, follow: bool, active: Callable[[], bool]) -> Iterator[bytes]:
        """Yield a job's log in chunks; with `follow` until the job has ended.

        Raises:
            NotFoundError: there is no such job.
            WrongStateError: the log was reclaimed; says when.
        """
        job = self.get(id_or_name)
        if "logs" in job.reclaimed:
            raise WrongStateError(
                f"the log of {job.name} was reclaimed at {job.reclaimed['logs']:%Y-%m-%d %H:%M} "
                "UTC: platform.keep.logs had passed"
            )
        return self._read_log(job, follow=follow, active=active)

    def _read_log(self, job: Job, *, follow: bool, active: Callable[[], bool]) -> Iterator[bytes]:
        path, offset = self.workspace(job).log, 0
        while active():
            commits = self._ledger.commits
            # Looked at before reading: what an ended job wrote is then read to the end.
            ended = self.get(job.id).state in TERMINAL
            for chunk in _read_from(path, offset):
                offset += len(chunk)
                yield chunk
            if ended or not follow:
                return
            self._wait(commits, FOLLOW_SECONDS)

    def _wait(self, commits: int, timeout: float) -> None:
        self._ledger.next_commit(commits, timeout)
        time.sleep(REST_SECONDS)

    def workspace(self, job: Job) -> Workspace:
        """Return where a job's files lie."""
        return self._workspaces.of(job.id)


def _read_from(path: Path, offset: int) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        while chunk := stream.read(LOG_CHUNK):
            yield chunk


def _check(request: JobRequest) -> None:
    if not 0 < len(request.request_id) <= LONGEST_REQUEST_ID:
        raise InvalidArgumentError("request_id", f"must have 1 to {LONGEST_REQUEST_ID} characters")
    if not safe_name(request.name):
        raise InvalidArgumentError("name", "must have a letter or digit")
    if not request.inputs:
        raise InvalidArgumentError("items[0].inputs", "must name at least one series")
    for number, series in enumerate(request.inputs):
        where = f"items[0].inputs[{number}].instances"
        if not series.files:
            raise InvalidArgumentError(where, "must not be empty")
        for position, file in enumerate(series.files):
            check(file, f"{where}[{position}]")


def _digest(request: JobRequest) -> str:
    fields = asdict(request)
    if request.supersedes is None:
        # As it was before there was this field: a request that was made then may come again.
        del fields["supersedes"]
    values = json.dumps(fields, sort_keys=True, default=str)
    return sha256(values.encode()).hexdigest()
