"""Composing: what people choose of what is kept, shown before and made a job of.

It is the adapter's side: the job is asked of the platform, whichever that is, as every other one.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy import Connection

from dicom_adapter.attributes import criteria_of
from dicom_adapter.clock import Clock
from dicom_adapter.conditions import told
from dicom_adapter.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnreadableInstanceError,
    WrongStateError,
)
from dicom_adapter.ledger import Ledger, index_search, instances
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.lifecycle import Action, Role, role_for
from dicom_adapter.model import (
    DEFAULT_PROJECT,
    Caller,
    IndexedInstance,
    JobInput,
    JobRequest,
    Part,
    Priority,
    Requirements,
    SeriesSummary,
    StudySummary,
    chosen_input,
    job_name,
)
from dicom_adapter.model.paging import page_of, token_of
from dicom_adapter.pictures.drawing import LONGEST, Drawing
from dicom_adapter.ranges import Order, Range, Selection, Whole, label_of, range_of, select
from dicom_adapter.rpc.client import Client
from dicom_adapter.submit.checking import unmet_of
from dicom_adapter.submit.delivery import upload_missing
from dicom_adapter.v1 import jobs_pb2

Pairs = Sequence[tuple[str, str]]
MOST_PARTS = 1000
MOST_TOLD = 10
# Two hospitals may give one ID to two people.
_PATIENT = ("PatientID", "IssuerOfPatientID")
# Each holds a thread of the API while it waits for the platform, which may need one to answer it.
MOST_AT_A_TIME = 8


@dataclass(frozen=True)
class Selected:
    """A series, and what was chosen of it."""

    series: SeriesSummary
    selection: Selection


@dataclass(frozen=True)
class Preview:
    """What a job would get, item by item, and every reason why there can be none."""

    items: tuple[tuple[Selected, ...], ...]
    problems: tuple[str, ...]


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

    def one_series(self, caller: Caller, uid: str) -> SeriesSummary:
        """Return a series; where several AE titles keep it, as the first of them has it.

        Raises:
            NotFoundError: nothing is kept of it.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            return _series(tx, uid)

    def instances(self, caller: Caller, uid: str) -> Sequence[IndexedInstance]:
        """Return what is kept of a series, by its numbers; raises as `one_series` does."""
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            series = _series(tx, uid)
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
            chosen = tuple(self._chosen(tx, number, parts) for number, parts in enumerate(items))
        requires = self._client.requirements(pipeline) if pipeline else None
        # Of what is required the files are asked: the index has but one patient of a study.
        problems = _problems(chosen, several_patients=requires is not None)
        if requires is not None:
            problems += _unmet(chosen, requires)
        return Preview(chosen, tuple(problems))

    def _chosen(self, tx: Connection, number: int, parts: Sequence[Part]) -> tuple[Selected, ...]:
        where = f"items[{number}].parts"
        if not 0 < len(parts) <= MOST_PARTS:
            raise InvalidArgumentError(where, f"must be 1 to {MOST_PARTS}, not {len(parts)}")
        return tuple(
            Selected(series, self._selection(tx, series, wanted, order))
            for place, part in enumerate(parts)
            for series, wanted, order in _named(tx, part, f"{where}[{place}]")
        )

    def _selection(
        self, tx: Connection, series: SeriesSummary, wanted: Range, order: Order
    ) -> Selection:
        found = index_search.members(tx, series.study_uid, series.uid, self._locate)
        return select(found, wanted, order)

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
            raise _refusal(preview)
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
        preview = self.preview(caller, wanted.items, wanted.pipeline)
        if preview.problems:
            raise _refusal(preview)
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
            items=tuple(tuple(map(_input, item)) for item in preview.items),
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
            ids: list[str] = []
            needed = 0
            named = [(uid, None) for uid in studies]
            for study, one in [*named, *((_series(tx, uid).study_uid, uid) for uid in series)]:
                free, held = index_search.to_release(tx, study, one)
                if not free and not held:
                    raise NotFoundError(f"nothing is kept of the study {study}")
                ids += free
                needed += held
            released = list(dict.fromkeys(ids))
            instances.release_by(tx, released, self._clock.now(), caller.name)
        self._released()
        return len(released), needed

    def _release(self, ids: Sequence[str], caller: Caller) -> None:
        with self._ledger.write() as tx:
            free = index_search.not_needed(tx, ids)
            instances.release_by(tx, free, self._clock.now(), caller.name)
        self._released()


def _named(tx: Connection, part: Part, where: str) -> list[tuple[SeriesSummary, Range, Order]]:
    """Return the series that a part names, with what is wanted of each."""
    if bool(part.series) == bool(part.study):
        raise InvalidArgumentError(where, "must name a series or a study, and not both")
    try:
        order = Order(part.order or Order.NUMBER)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{where}.order", f"must be one of {', '.join(Order)}, not '{part.order}'"
        ) from error
    wanted = range_of(part.range or (Whole.ALL if part.study else Whole.AUTO))
    if part.series:
        return [(_series(tx, part.series), wanted, order)]
    found = index_search.series_of_study(tx, part.study)
    if not found:
        raise NotFoundError(f"nothing is kept of the study {part.study}: have it sent first")
    # What two AE titles keep of a series is one series.
    return [(one, wanted, order) for one in {one.uid: one for one in reversed(found)}.values()][
        ::-1
    ]


def _series(tx: Connection, uid: str) -> SeriesSummary:
    found = index_search.series_of_uid(tx, uid)
    if not found:
        raise NotFoundError(f"nothing is kept of the series {uid}: have it sent first")
    studies = sorted({one.study_uid for one in found})
    if len(studies) > 1:
        raise WrongStateError(
            f"the series {uid} is in several studies, {', '.join(studies)}: name the study"
        )
    return found[0]


def _unmet(items: Sequence[Sequence[Selected]], requires: Requirements) -> Sequence[str]:
    """Return what of the files is not what a pipeline requires."""
    given = [
        [
            (
                one.series.study_uid,
                one.series.uid,
                [each.stored for each in one.selection.instances],
            )
            for one in item
        ]
        for item in items
    ]
    try:
        return told(unmet_of(given, requires))
    except OSError as error:
        return [f"a file cannot be read ({error.strerror}): was it released meanwhile?"]
    except UnreadableInstanceError as error:
        return [str(error)]


def _problems(items: Sequence[Sequence[Selected]], *, several_patients: bool) -> list[str]:
    found = [
        f"series {one.series.uid}: {problem}"
        for item in items
        for one in item
        for problem in one.selection.problems
    ]
    for item in items:
        patients = {_patient(one.series) for one in item}
        if len(patients) > 1 and not several_patients:
            found.append(f"the series are of {len(patients)} patients, and a job is of one")
    return list(dict.fromkeys(found))


def _refusal(preview: Preview) -> WrongStateError:
    told, more = list(preview.problems[:MOST_TOLD]), len(preview.problems) - MOST_TOLD
    return WrongStateError("; ".join(told + [f"and {more} more: see the preview"] * (more > 0)))


def _patient(series: SeriesSummary) -> tuple[str, ...]:
    ids = tuple(series.attributes.get(key, "") for key in _PATIENT)
    # Without an ID, nobody can tell whether two studies are of one patient.
    return ids if ids[0] else ("", series.study_uid)


def _input(selected: Selected) -> JobInput:
    series, selection = selected.series, selected.selection
    label = label_of(selection.range, selection.order)
    return chosen_input(
        series.study_uid, series.uid, label, (one.stored for one in selection.instances)
    )
