"""Composing: what people choose of what is kept, shown before and made a job of.

It is the adapter's side: the job is asked of the platform, whichever that is, as every other one.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from dicom_adapter.attributes import criteria_of
from dicom_adapter.clock import Clock
from dicom_adapter.compose import choosing
from dicom_adapter.compose.choosing import Preview
from dicom_adapter.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from dicom_adapter.ledger import Ledger, index_search, instances
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.lifecycle import Action, Role, role_for
from dicom_adapter.model import (
    DEFAULT_PROJECT,
    Caller,
    IndexedInstance,
    JobRequest,
    Part,
    Priority,
    SeriesSummary,
    StudySummary,
    job_name,
)
from dicom_adapter.model.paging import page_of, token_of
from dicom_adapter.pictures.drawing import LONGEST, Drawing
from dicom_adapter.ranges import Whole, select
from dicom_adapter.rpc.client import Client
from dicom_adapter.submit.delivery import upload_missing
from dicom_adapter.v1 import jobs_pb2

Pairs = Sequence[tuple[str, str]]
# Each holds a thread of the API while it waits for the platform, which may need one to answer it.
MOST_AT_A_TIME = 8


@dataclass(frozen=True)
class Composition:
    """A job that is wanted."""

    pipeline: str
    items: tuple[tuple[Part, ...], ...]
    name: str = ""
    priority: Priority = Priority.NORMAL
    arguments: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    #: Make it also where a job has the same pipeline and instances.
    force: bool = False
    #: Let what it was made of go, once the platform has it.
    release: bool = False
    request_id: str = ""
    fail_fast: bool = False


class Composing:
    """Searches what is kept, and makes jobs of it."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        client: Client,
        *,
        locate: Locate,
        released: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._client = client
        self._locate = locate
        self._released = released
        self._places = threading.Semaphore(MOST_AT_A_TIME)
        self._drawing = Drawing()

    # What there is

    def studies(
        self, caller: Caller, pairs: Pairs, size: int, token: str
    ) -> tuple[list[StudySummary], str]:
        """Return a page of the studies that match, and the token of the next.

        Raises:
            InvalidArgumentError: an attribute is none that is searched, or cannot be so.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.VIEWER)
        limit, before = page_of(size, token)
        with self._ledger.read() as tx:
            found, last = index_search.studies(tx, criteria_of(pairs), limit, before)
        return found, token_of(last)

    def series(
        self, caller: Caller, pairs: Pairs, size: int, token: str
    ) -> tuple[list[SeriesSummary], str]:
        """Return a page of the series that match, and the token of the next; as `studies`."""
        caller.check_everywhere(Role.VIEWER)
        limit, before = page_of(size, token)
        with self._ledger.read() as tx:
            found, last = index_search.series(tx, criteria_of(pairs), limit, before)
        return found, token_of(last)

    def one_series(self, caller: Caller, uid: str, study: str = "") -> SeriesSummary:
        """Return a series; where several AE titles keep it, as the first of them has it.

        Args:
            caller: Who wants to know.
            uid: The series.
            study: Its study, which a series that is in several has to be named with.

        Raises:
            NotFoundError: nothing is kept of it.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            return choosing.series_of(tx, uid, study)

    def instances(self, caller: Caller, uid: str, study: str = "") -> Sequence[IndexedInstance]:
        """Return what is kept of a series, by its numbers; raises as `one_series` does."""
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            series = choosing.series_of(tx, uid, study)
            found = index_search.members(tx, series.study_uid, series.uid, self._locate)
        return select(found, Whole.ALL).instances

    # What is chosen of it

    def preview(self, caller: Caller, items: Sequence[Sequence[Part]], pipeline: str) -> Preview:
        """Return what a job would get, and why there can be none.

        Raises:
            InvalidArgumentError: a part names no series, or no range.
            NotFoundError: nothing is kept of a series or study, or there is no such pipeline.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.VIEWER)
        if not items:
            raise InvalidArgumentError("items", "must name at least one series")
        with self._ledger.read() as tx:
            chosen = choosing.choose(tx, items, self._locate)
        requires = self._client.requirements(pipeline) if pipeline else None
        return Preview(chosen, tuple(choosing.problems(chosen, requires)))

    def picture(self, caller: Caller, instance_id: str, frame: int, longest: int) -> bytes:
        """Return an instance that is kept as a PNG; frame 0 is the middle one.

        Raises:
            NotFoundError: it is not kept.
            NoPictureError: it holds no picture, or none that can be decoded.
            InvalidArgumentError: there is no such frame, or it cannot be that large.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            found = index_search.one_member(tx, instance_id, self._locate)
        if found is None:
            raise NotFoundError(f"no instance is kept that has the id '{instance_id}'")
        return self._drawing.instance(found.path, frame or None, longest or LONGEST)

    def montage(self, caller: Caller, parts: Sequence[Part], longest: int) -> bytes:
        """Return what parts choose as one PNG, also where no job can be made of it.

        Raises as `preview` and `picture` do.
        """
        preview = self.preview(caller, [parts], "")
        chosen = [one.stored.path for each in preview.items[0] for one in each.selection.instances]
        if not chosen:
            raise preview.refusal()
        return self._drawing.montage(chosen, longest or LONGEST)

    def compose(self, caller: Caller, wanted: Composition) -> jobs_pb2.Job:
        """Make a job of what is chosen, and return it as the platform has it.

        Raises:
            AlreadyExistsError: a job has the same pipeline and instances, which are not forced.
            WrongStateError: no job can be made of it; tells every problem.
            UnavailableError: the platform does not answer: nothing was made, ask again.
            DicomAdapterError: as `preview` raises, and as the platform refuses it.
        """
        caller.check_everywhere(role_for(Action.CREATE))
        if not self._places.acquire(blocking=False):
            raise UnavailableError("too many jobs are composed at a time: try again later")
        try:
            return self._compose(caller, wanted)
        finally:
            self._places.release()

    def _compose(self, caller: Caller, wanted: Composition) -> jobs_pb2.Job:
        try:
            preview = self.preview(caller, wanted.items, wanted.pipeline)
        except NotFoundError:
            # What the same request was made of may have been let go since, by itself.
            found = self._client.found(wanted.request_id) if wanted.request_id else None
            if found is None:
                raise
            return found
        if preview.problems:
            raise preview.refusal()
        chosen = [one for item in preview.items for one in item]
        request = self._request(caller, wanted, preview)
        stored = {one.stored.id: one.stored for each in chosen for one in each.selection.instances}
        upload_missing(self._client, request, {key: one.path for key, one in stored.items()})
        job = self._client.submitted(request)
        if wanted.release:
            self._release(list(stored), caller)
        return job

    def _request(self, caller: Caller, wanted: Composition, preview: Preview) -> JobRequest:
        titles = {
            one.stored.ae_title
            for item in preview.items
            for each in item
            for one in each.selection.instances
        }
        # Of several, none is the one that it came in by.
        title = titles.pop() if len(titles) == 1 else ""
        base = f"{title}-{wanted.pipeline}" if title else wanted.pipeline
        return JobRequest(
            request_id=wanted.request_id or uuid4().hex,
            # The same request again has to have the same name.
            name=wanted.name or (base if wanted.request_id else job_name(base, self._clock.now())),
            pipeline=wanted.pipeline,
            priority=wanted.priority,
            ae_title=title,
            items=tuple(tuple(one.input for one in item) for item in preview.items),
            arguments=wanted.arguments,
            project=wanted.project or caller.project or DEFAULT_PROJECT,
            fail_fast=wanted.fail_fast,
            refuse_duplicate=not wanted.force,
            requested_by=caller.name,
        )

    # What is let go

    def release(
        self, caller: Caller, studies: Sequence[str], series: Sequence[str]
    ) -> tuple[int, int]:
        """Let studies and series go; return how many instances went, and how many are needed.

        Raises:
            NotFoundError: nothing is kept of one of them; nothing has changed.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.OPERATOR)
        if not studies and not series:
            raise InvalidArgumentError("study_instance_uids", "must name a study, or a series")
        with self._ledger.write() as tx:
            free: list[str] = []
            held: list[str] = []
            named: list[tuple[str, str | None]] = [(uid, None) for uid in studies]
            # A series that is in several studies goes from all of them.
            named += [pair for uid in series for pair in choosing.places_of(tx, uid)]
            for study, one in named:
                some, others = index_search.to_release(tx, study, one)
                if not some and not others:
                    raise NotFoundError(f"nothing is kept of the study {study}")
                free += some
                held += others
            released = list(dict.fromkeys(free))
            instances.release_by(tx, released, self._clock.now(), caller.name)
        self._released()
        return len(released), len(set(held))

    def _release(self, ids: Sequence[str], caller: Caller) -> None:
        with self._ledger.write() as tx:
            free = index_search.not_needed(tx, ids)
            instances.release_by(tx, free, self._clock.now(), caller.name)
        self._released()
