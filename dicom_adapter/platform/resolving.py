"""What a job's series are by now, where they came in here and have grown since."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from dicom_adapter.errors import InvalidArgumentError, WrongStateError
from dicom_adapter.ledger import Ledger, index_search, instances, stock
from dicom_adapter.model import (
    WHOLE,
    Duplicates,
    IndexedInstance,
    Job,
    JobInput,
    Placement,
    StoredInstance,
    chosen_input,
    input_of,
)
from dicom_adapter.platform.workspace import Sources
from dicom_adapter.ranges import Order, Whole, open_range, select

CURE = "rerun it without re-resolving"


class Resolver:
    """Finds the instances of series that came in by the AE titles of this service."""

    def __init__(
        self,
        ledger: Ledger,
        locate: Callable[[str], Path],
        duplicates: Mapping[str, Duplicates],
    ) -> None:
        """Name where they are, and which of several alike a job gets, by AE title."""
        self._ledger = ledger
        self._locate = locate
        self._duplicates = duplicates

    def reload(self, duplicates: Mapping[str, Duplicates]) -> None:
        """Have jobs get these of several alike from now on."""
        self._duplicates = duplicates

    def again(self, job: Job, inputs: Sequence[JobInput], own: Sources) -> tuple[JobInput, ...]:
        """Return a job's inputs as they would be now; what was chosen by numbers stays what it was.

        Of a series there is what the job had of it, where that is still here (`own`: with the job
        itself), and what its AE title keeps of it.

        Raises:
            InvalidArgumentError: nothing here knows the job's series.
            WrongStateError: nothing is left of one of them, or its range of it cannot be told.
        """
        if not job.ae_title:
            raise InvalidArgumentError(
                "reresolve", f"{job.name} is of no AE title, so its series cannot grow: {CURE}"
            )
        with self._ledger.read() as tx:
            return tuple(self._now(tx, job, series, own) for series in inputs)

    def _now(self, tx: Connection, job: Job, series: JobInput, own: Sources) -> JobInput:
        grows = open_range(series.range)
        if grows is None:
            return series
        before = [file.instance_id for file in series.files]
        ids = {*before, *stock.of_series(tx, job.ae_title, series.study, series.series)}
        found = instances.known(tx, ids, self._locate)
        _check_before(job, series, found)
        kept = stock.kept(tx, ids)

        def is_here(one: StoredInstance) -> bool:
            key = one.id, one.sha256
            return key in own or (key in kept and one.path.exists())

        here = list(filter(is_here, found))
        if not here:
            raise WrongStateError(f"nothing is left of a series of {job.name}: send it again")
        rule = self._duplicates.get(job.ae_title, Duplicates.KEEP_FIRST)
        # The same bytes are one instance, also where they came again after the first were gone.
        seen = {(one.sop_instance_uid, one.sha256): one for one in rule.seen(here)}
        if series.range == WHOLE:
            return input_of(series.study, series.series, seen.values())
        return self._part(tx, job, series, list(seen.values()), grows)

    def _part(
        self,
        tx: Connection,
        job: Job,
        series: JobInput,
        here: Sequence[StoredInstance],
        wanted: tuple[Whole, Order],
    ) -> JobInput:
        indexed = index_search.members(tx, series.study, series.series, self._locate)
        places = {one.stored.id: one for one in indexed}
        found = [places.get(one.id) or IndexedInstance(one, Placement(), frames=1) for one in here]
        selection = select(found, *wanted)
        if selection.problems:
            raise WrongStateError(f"{job.name}: {'; '.join(selection.problems)}")
        chosen = (one.stored for one in selection.instances)
        return chosen_input(series.study, series.series, series.range, chosen)


def _check_before(job: Job, series: JobInput, found: Sequence[StoredInstance]) -> None:
    """Make sure that what a job had of a series came in here, by its AE title."""
    came = {
        (one.id, one.sha256)
        for one in found
        if one.ae_title == job.ae_title
        and one.study_instance_uid == series.study
        and one.series_instance_uid == series.series
    }
    if any(file.key not in came for file in series.files):
        raise InvalidArgumentError(
            "reresolve",
            f"an instance of {job.name} did not come in here by {job.ae_title}, but was uploaded "
            f"by another machine, so nothing here knows its series: {CURE}",
        )
