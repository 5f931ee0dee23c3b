"""How jobs are looked at: one, many, as they change, and what they print."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_adapter.errors import InvalidArgumentError, NotFoundError, WrongStateError
from dicom_adapter.ledger import Ledger, events, jobs
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.lifecycle import FRUITFUL, TERMINAL, ItemState
from dicom_adapter.model import Caller, Event, Job
from dicom_adapter.model.paging import page_of, token_of
from dicom_adapter.platform.joblog import LogReader
from dicom_adapter.platform.queue import JobQueue
from dicom_adapter.platform.selection import named
from dicom_adapter.platform.workspace import Workspace, Workspaces

# A log grows without a commit, so a follower looks again this often while the job runs.
FOLLOW_SECONDS = 0.5
# Of a file that is streamed.
CHUNK = 64 * 1024
# So often it is looked whether anybody watches still.
WATCH_SECONDS = 1.0
# Most commits are of no job: those who watch look at what some of them have changed at once.
REST_SECONDS = 0.1


@dataclass(frozen=True)
class JobPage:
    """A page of jobs, and the token of the next one, empty on the last."""

    jobs: tuple[Job, ...]
    next_token: str


@dataclass(frozen=True)
class Change:
    """What has become of a job: the newest event, the job as it stands, and its move if told."""

    number: int
    job_id: str
    job: Job | None
    move: Event | None = None


class JobViews:
    """Shows the jobs of the projects that a caller may look into; it changes nothing."""

    def __init__(self, ledger: Ledger, queue: JobQueue, workspaces: Workspaces) -> None:
        self._ledger = ledger
        self._queue = queue
        self._workspaces = workspaces

    def get(self, caller: Caller, id_or_name: str) -> Job:
        """Return a job, of one that waits also why; NotFoundError when there is none."""
        with self._ledger.read() as tx:
            return self._queue.explained(tx, jobs.get(tx, id_or_name, caller.project))

    def of_request(self, caller: Caller, request_id: str) -> Job:
        """Return the job that a request id has made; NotFoundError when there is none."""
        with self._ledger.read() as tx:
            found = jobs.of_request(tx, request_id)
        if found is None or not caller.sees(found[0].project):
            raise NotFoundError(f"no job was made by the request id '{request_id}'")
        return found[0]

    def _one(self, caller: Caller, id_or_name: str) -> Job:
        with self._ledger.read() as tx:
            return jobs.get(tx, id_or_name, caller.project)

    def history(self, caller: Caller, id_or_name: str) -> list[Event]:
        """Return every move of a job, the oldest first; of a deleted one by its id.

        Raises:
            NotFoundError: there is none, and never was.
        """
        with self._ledger.read() as tx:
            try:
                job_id = jobs.id_of(tx, id_or_name, caller.project)
            except NotFoundError:
                job_id = id_or_name
            found = [
                event
                for event in events.of_subject(tx, job_id)
                if event.kind == jobs.KIND and caller.sees(event.project)
            ]
        if not found:
            raise NotFoundError(f"no job has, or had, the id or name '{id_or_name}'")
        return found

    def listed(self, caller: Caller, wanted: JobFilter, page_size: int, token: str) -> JobPage:
        """Return a page of jobs, the newest first.

        Raises:
            PermissionDeniedError: it asks for a project that the caller may not look into.
            InvalidArgumentError: the page size is negative, or the token none that this gave.
        """
        size, before = page_of(page_size, token)
        project = wanted.project or caller.project or ""
        caller.check_project(project)
        with self._ledger.read() as tx:
            page, after = jobs.listed(tx, replace(wanted, project=project), size, before)
        return JobPage(tuple(page), token_of(after))

    def watch(
        self, caller: Caller, id_or_name: str, after_event: int, active: Callable[[], bool]
    ) -> Iterator[Change]:
        """Yield each change of one job, or of all of them, as they happen.

        A job that is watched alone is yielded at once, on each step of it too, and the iteration
        ends with the job.
        """
        if id_or_name:
            return self._watch_one(self._one(caller, id_or_name).id, active)
        return self._watch_all(caller, after_event, active)

    def _watch_one(self, job_id: str, active: Callable[[], bool]) -> Iterator[Change]:
        shown: Job | None = None
        while active():
            commits = self._ledger.commits
            with self._ledger.read() as tx:
                job, number = jobs.get(tx, job_id), events.last_number(tx)
            if job != shown:
                yield Change(number, job_id, job)
                shown = job
            if job.state in TERMINAL:
                return
            self._wait(commits, WATCH_SECONDS)

    def _watch_all(
        self, caller: Caller, after: int, active: Callable[[], bool]
    ) -> Iterator[Change]:
        with self._ledger.read() as tx:
            seen = after or events.last_number(tx)
        while active():
            commits = self._ledger.commits
            with self._ledger.read() as tx:
                news = events.after(tx, seen, jobs.KIND)
                known = jobs.known(tx, [event.subject for event in news])
                found = {job_id: jobs.get(tx, job_id) for job_id in known}
                # Where no job has moved: of the others' events, none is looked at twice.
                seen = news[-1].number if news else events.last_number(tx)
            for event in news:
                if not caller.sees(event.project):
                    continue
                yield Change(event.number, event.subject, found.get(event.subject), event)
            if not news:
                self._wait(commits, WATCH_SECONDS)

    def logs(
        self, caller: Caller, id_or_name: str, *, follow: bool, active: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Yield a job's log in chunks; with `follow` until the job has ended.

        Raises:
            NotFoundError: there is no such job.
            WrongStateError: the log was reclaimed; says when.
        """
        job = self._one(caller, id_or_name)
        if "logs" in job.reclaimed:
            raise WrongStateError(
                f"the log of {job.name} was reclaimed at {job.reclaimed['logs']:%Y-%m-%d %H:%M} "
                "UTC: platform.keep.logs had passed"
            )
        return self._read_log(caller, job, follow=follow, active=active)

    def _read_log(
        self, caller: Caller, job: Job, *, follow: bool, active: Callable[[], bool]
    ) -> Iterator[bytes]:
        reader = LogReader(self.workspace(job).log)
        while active():
            commits = self._ledger.commits
            # Looked at before reading: what an ended job wrote is then read to the end.
            ended = self._one(caller, job.id).state in TERMINAL
            yield from reader.news()
            if ended or not follow:
                return
            self._wait(commits, FOLLOW_SECONDS)

    def provenance_of(self, job: Job) -> Path | None:
        """Return the file that says how a job's outputs were made; None where there is none.

        Of a job of several items each has a file of its own, and the job none.
        """
        path = self.workspace(job).provenance
        return path if job.state in FRUITFUL and path.is_file() else None

    def provenance(self, caller: Caller, id_or_name: str, item: str = "") -> Iterator[bytes]:
        """Yield how the outputs of a finished item were made, in chunks of one JSON object.

        Raises:
            NotFoundError: there is no such job, or no record of it.
            InvalidArgumentError: there is no such item, or it must be said which one is meant.
            WrongStateError: the item is not finished.
        """
        job = self._one(caller, id_or_name)
        if not item and len(job.items) > 1:
            raise InvalidArgumentError("item", f"must be one of the {len(job.items)} of {job.name}")
        (chosen,) = named(job, [item]) if item else job.items
        if chosen.state != ItemState.FINISHED:
            what = job.name if len(job.items) == 1 else f"item {chosen.number} of {job.name}"
            raise WrongStateError(
                f"{what} is {chosen.state}: only what has finished has a provenance"
            )
        path = self.workspace(job).of_item(chosen, len(job.items)).provenance
        if not path.is_file():
            raise NotFoundError(
                f"{job.name} has no provenance: it finished before there was any, or a person has "
                "removed the file"
            )
        return _chunks(path)

    def output(self, caller: Caller, id_or_name: str, path: str) -> Iterator[bytes]:
        """Yield one output in chunks, named as the job names it, as soon as its item has finished.

        Raises:
            NotFoundError: there is no such job, or it has no such output.
            WrongStateError: nothing of it has finished, or its outputs were reclaimed; says when.
        """
        job = self._one(caller, id_or_name)
        if all(item.state != ItemState.FINISHED for item in job.items):
            raise WrongStateError(
                f"{job.name} is {job.state}: only a job that has finished has outputs"
            )
        if "outputs" in job.reclaimed:
            raise WrongStateError(
                f"the outputs of {job.name} were reclaimed at "
                f"{job.reclaimed['outputs']:%Y-%m-%d %H:%M} UTC: platform.keep.outputs had passed"
            )
        folder = self.workspace(job).output
        file = folder / path
        # By what the job has, never by the path alone: nothing else of this disk is given away.
        known = any(output.path == path for output in job.outputs)
        if not known or not file.is_file() or file.resolve() != folder.resolve() / path:
            raise NotFoundError(f"{job.name} has no output of that path: see what it lists")
        return _chunks(file)

    def _wait(self, commits: int, timeout: float) -> None:
        self._ledger.next_commit(commits, timeout)
        time.sleep(REST_SECONDS)

    def workspace(self, job: Job) -> Workspace:
        """Return where a job's files lie."""
        return self._workspaces.of(job.id)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
