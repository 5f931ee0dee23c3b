"""What people choose of what is kept, item by item, and why no job can be made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from dicom_adapter import conditions
from dicom_adapter.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnreadableInstanceError,
    WrongStateError,
)
from dicom_adapter.ledger import index_search
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import (
    JobInput,
    Part,
    Requirements,
    SeriesSummary,
    chosen_input,
    patient_of,
)
from dicom_adapter.ranges import Order, Range, Selection, Whole, label_of, range_of, select
from dicom_adapter.submit.checking import unmet_of

MOST_PARTS = 1000
MOST_TOLD = 10


@dataclass(frozen=True)
class Selected:
    """A series, and what was chosen of it."""

    series: SeriesSummary
    selection: Selection

    @property
    def input(self) -> JobInput:
        """The same as an input of a job."""
        series, selection = self.series, self.selection
        label = label_of(selection.range, selection.order)
        return chosen_input(
            series.study_uid, series.uid, label, (one.stored for one in selection.instances)
        )


Items = tuple[tuple[Selected, ...], ...]


@dataclass(frozen=True)
class Preview:
    """What a job would get, item by item, and every reason why there can be none."""

    items: Items
    problems: tuple[str, ...]

    def refusal(self) -> WrongStateError:
        """Return why there can be none; of many reasons the first."""
        first, more = list(self.problems[:MOST_TOLD]), len(self.problems) - MOST_TOLD
        return WrongStateError(
            "; ".join(first + [f"and {more} more: see the preview"] * (more > 0))
        )


def choose(tx: Connection, items: Sequence[Sequence[Part]], locate: Locate) -> Items:
    """Return what parts choose, item by item.

    Raises:
        InvalidArgumentError: a part names no series, or no range.
        NotFoundError: nothing is kept of a series or study.
        WrongStateError: a series is in several studies, and none is named.
    """
    return tuple(
        tuple(_of_item(tx, f"items[{number}].parts", parts, locate))
        for number, parts in enumerate(items)
    )


def _of_item(
    tx: Connection, where: str, parts: Sequence[Part], locate: Locate
) -> Iterator[Selected]:
    if not 0 < len(parts) <= MOST_PARTS:
        raise InvalidArgumentError(where, f"must be 1 to {MOST_PARTS}, not {len(parts)}")
    for place, part in enumerate(parts):
        for series, wanted, order in _named(tx, part, f"{where}[{place}]"):
            found = index_search.members(tx, series.study_uid, series.uid, locate)
            yield Selected(series, select(found, wanted, order))


def _named(tx: Connection, part: Part, where: str) -> list[tuple[SeriesSummary, Range, Order]]:
    """Return the series that a part names, with what is wanted of each."""
    if not part.series and not part.study:
        raise InvalidArgumentError(where, "must name a series or a study")
    try:
        order = Order(part.order or Order.NUMBER)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{where}.order", f"must be one of {', '.join(Order)}, not '{part.order}'"
        ) from error
    if part.series:
        wanted = range_of(part.range or Whole.AUTO)
        return [(series_of(tx, part.series, part.study), wanted, order)]
    wanted = range_of(part.range or Whole.ALL)
    found = index_search.series_of_study(tx, part.study)
    if not found:
        if index_search.series_of_uid(tx, part.study):
            raise NotFoundError(f"{part.study} is no study but a series: name it as one")
        raise NotFoundError(f"nothing is kept of the study {part.study}: have it sent first")
    # What two AE titles keep of a series is one series.
    return [(one, wanted, order) for one in {one.uid: one for one in reversed(found)}.values()][
        ::-1
    ]


def series_of(tx: Connection, uid: str, study: str = "") -> SeriesSummary:
    """Return a series, as the first AE title that keeps it has it.

    Raises:
        NotFoundError: nothing is kept of it.
        WrongStateError: it is in several studies, and none is named.
    """
    found = [one for one in _all_of(tx, uid) if study in ("", one.study_uid)]
    if not found:
        raise NotFoundError(f"the series {uid} is not in the study {study}")
    studies = sorted({one.study_uid for one in found})
    if len(studies) > 1:
        raise WrongStateError(
            f"the series {uid} is in several studies, {', '.join(studies)}: name one of them too, "
            "on the command line as STUDY/SERIES"
        )
    return found[0]


def places_of(tx: Connection, uid: str) -> list[tuple[str, str]]:
    """Return the studies that a series is in, each with the series; raises as `series_of` does."""
    return sorted({(one.study_uid, uid) for one in _all_of(tx, uid)})


def _all_of(tx: Connection, uid: str) -> list[SeriesSummary]:
    found = index_search.series_of_uid(tx, uid)
    if not found:
        if index_search.series_of_study(tx, uid):
            raise NotFoundError(f"{uid} is no series but a study: name one of its series")
        raise NotFoundError(f"nothing is kept of the series {uid}: have it sent first")
    return found


def problems(items: Items, requires: Requirements | None) -> list[str]:
    """Return every reason why no job of a pipeline can be made of what was chosen.

    Args:
        items: What was chosen.
        requires: What the pipeline requires; None: whatever comes.
    """
    found = [
        f"series {one.series.uid}: {problem}"
        for item in items
        for one in item
        for problem in one.selection.problems
    ]
    if requires is not None:
        # It asks of the patients too, the files themselves.
        found += _unmet(items, requires)
    else:
        patients = [len({patient for one in item for patient in _patients(one)}) for item in items]
        found += [
            f"the series are of {count} patients, and a job is of one: choose those of one, or let "
            "the pipeline have `requires: {patients: several}`"
            for count in patients
            if count > 1
        ]
    return list(dict.fromkeys(found))


def _patients(chosen: Selected) -> set[str]:
    """Return whose a series is: of several people where a study was put together wrongly."""
    of_study = patient_of(chosen.series.attributes)
    found = {of_study if one.patient is None else one.patient for one in chosen.selection.instances}
    # Without an ID, nobody can tell whether two studies are of one patient.
    return {patient or f"of study {chosen.series.study_uid}" for patient in found}


def _unmet(items: Items, requires: Requirements) -> Sequence[str]:
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
        return conditions.told(unmet_of(given, requires))
    except OSError as error:
        return [f"a file cannot be read ({error.strerror}): was it released meanwhile?"]
    except UnreadableInstanceError as error:
        return [str(error)]
