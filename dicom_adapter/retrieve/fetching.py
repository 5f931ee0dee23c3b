"""Fetching: studies that a source has come into an AE title that keeps what it gets.

What is here already is not fetched again. So a fetch that broke off, here or there, goes on where
it stopped when it is asked for once more: what has come is in the ledger, and nothing else counts.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import structlog

from dicom_adapter.attributes import criteria_of
from dicom_adapter.backoff import pause_after
from dicom_adapter.clock import Clock
from dicom_adapter.config import Settings
from dicom_adapter.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from dicom_adapter.ledger import Ledger, events, index_search, stock
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller
from dicom_adapter.receive.deposit import Deposit, Provenance
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.retrieve.archive import Archive, ElsewhereInstance, ElsewhereSeries
from dicom_adapter.retrieve.opening import archive_of
from dicom_adapter.retrieve.queries import ElsewhereStudy, Wanted, series_of, studies_of

KIND = "retrieval"
# Each holds a thread of the API while it lasts.
MOST_AT_A_TIME = 4
#: So many studies of an answer are told; whoever gets as many asks for less.
MOST_STUDIES = 1000
# Tried so often in a row without anything coming, it is given up: a PACS that is started again is
# there within some ten seconds.
ATTEMPTS = 5
_LOOK_SECONDS = 0.5

#: Opens what takes in the instances of a retrieval for an AE title.
Deposits = Callable[[str, Provenance], Deposit]
#: Has a function called when a call is over, however it ends.
WhenOver = Callable[[Callable[[], None]], object]

log = structlog.get_logger()


@dataclass(frozen=True)
class Fetch:
    """A study that is wanted from a source."""

    source: str
    study: str = field(repr=False)
    #: What series of it have to be, by attribute; none: all of them.
    attributes: Sequence[tuple[str, str]] = field(default=(), repr=False)
    #: The AE title that it comes into; empty: the only one that keeps what it gets.
    into: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a fetch is."""

    #: Of what is wanted: series, and instances that the AE title takes.
    series: int
    wanted: int
    #: Instances of SOP classes that it does not take.
    left_out: int
    #: Those that were here before, and those that have come since.
    before: int
    fetched: int = 0
    #: What happens, where that is not just that they come.
    note: str = ""


class Fetching:
    """Asks the configured sources for studies, and has them come."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        clock: Clock,
        *,
        keeps: Callable[[str], bool],
        deposits: Deposits,
    ) -> None:
        """Prepare to fetch.

        Args:
            settings: The configuration.
            ledger: Knows what is here.
            clock: The time.
            keeps: Tells whether the job processor of a name keeps what it gets.
            deposits: Opens what takes in the instances of a retrieval.
        """
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._keeps = keeps
        self._deposits = deposits
        self._places = threading.Semaphore(MOST_AT_A_TIME)
        self._asked: set[Archive] = set()
        self._stopping = threading.Event()

    @property
    def asked(self) -> int:
        """How many sources are asked now."""
        return len(self._asked)

    def reload(self, settings: Settings) -> None:
        """Go by other settings from now on; what is being fetched goes on as it began."""
        self._settings = settings

    def stop(self) -> None:
        """Break off what is being fetched, and begin nothing more."""
        self._stopping.set()
        for archive in list(self._asked):
            archive.stop()

    def studies(
        self, caller: Caller, source: str, pairs: Sequence[tuple[str, str]], when_over: WhenOver
    ) -> list[tuple[ElsewhereStudy, int]]:
        """Return what studies a source has that match, and how many instances of each are here.

        At most `MOST_STUDIES`.

        Raises:
            InvalidArgumentError: nothing is asked, or what no source is asked.
            NotFoundError: there is no such source.
            UnavailableError: it does not answer now.
            SourceError: it refuses, or cannot do it.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.OPERATOR)
        wanted = Wanted.of(pairs)
        with self._opened(source, self._any_title(), when_over) as archive:
            found = list(islice(studies_of(archive, wanted), MOST_STUDIES))
        return [(study, self._here(study.uid)) for study in found]

    def _here(self, study: str) -> int:
        criteria = criteria_of([("StudyInstanceUID", study)])
        with self._ledger.read() as tx:
            found, _last = index_search.studies(tx, criteria, 1)
        return sum(one.instances for one in found)

    def fetch(self, caller: Caller, wanted: Fetch, when_over: WhenOver) -> Iterator[Progress]:
        """Have a study come that a source has; yield how far that is.

        Raises:
            NotFoundError: there is no such source or AE title, or the source has no such study.
            UnavailableError: it broke off, or not all has come: the same once more goes on.
            DicomAdapterError: as `studies` raises.
        """
        caller.check_everywhere(Role.OPERATOR)
        if not is_uid(wanted.study):
            raise InvalidArgumentError("study_instance_uid", "must be a UID")
        title = self._title(wanted.into)
        series = Wanted.of([("StudyInstanceUID", wanted.study), *wanted.attributes])
        with self._opened(wanted.source, title, when_over) as archive:
            deposit = self._deposits(title, archive.provenance)
            run = _Run(archive, deposit, self._stopping, lambda uids: self._present(title, uids))
            with self._told(caller, wanted.source, title, run):
                yield from run.fetch(series_of(archive, wanted.study, series))
                run.judge(wanted.source)

    @contextmanager
    def _told(self, caller: Caller, source: str, title: str, run: "_Run") -> Iterator[None]:
        """Tell the trail that a fetch begins, and how it ended; the log, what has come by it."""
        add = partial(
            events.add,
            kind=KIND,
            subject=str(run.number),
            source=source,
            target=title,
            actor=caller.name,
        )
        with self._ledger.write() as tx:
            add(tx, action="fetch", at=self._clock.now())
        try:
            yield
        finally:
            # Where it was broken off, something may have come since the last look.
            run.look()
            found = run.progress
            counts = {"instances": found.fetched, "before": found.before, "wanted": found.wanted}
            log.info(
                "study fetched" if run.is_whole else "study not fetched whole",
                action="fetched",
                source=source,
                ae_title=title,
                association=run.number,
                **counts,
            )
            with self._ledger.write() as tx:
                add(
                    tx,
                    action="finish" if run.is_whole else "fail",
                    at=self._clock.now(),
                    reason=", ".join(f"{count} {what}" for what, count in counts.items()),
                )

    def _present(self, title: str, uids: Sequence[str]) -> set[str]:
        with self._ledger.read() as tx:
            return stock.present(tx, title, uids)

    @contextmanager
    def _opened(self, source: str, title: str, when_over: WhenOver) -> Iterator[Archive]:
        if not self._places.acquire(blocking=False):
            raise UnavailableError("too many studies are fetched at a time: try again later")
        try:
            with archive_of(self._settings, source, title) as archive:
                self._asked.add(archive)
                try:
                    if self._stopping.is_set():
                        raise UnavailableError("the service stops")
                    when_over(archive.stop)
                    yield archive
                finally:
                    self._asked.discard(archive)
        finally:
            self._places.release()

    def _keepers(self) -> list[str]:
        titles = self._settings.ae_titles.values()
        return [title.title for title in titles if self._keeps(title.processor)]

    def _title(self, into: str) -> str:
        keepers = self._keepers()
        if into in keepers or (not into and len(keepers) == 1):
            return into or keepers[0]
        if not keepers:
            raise NotFoundError("no AE title keeps what it gets: give one `processor: cache`")
        told = f"those that keep what they get are {', '.join(keepers)}"
        if not into:
            raise InvalidArgumentError("ae_title", f"must be named: {told}")
        raise NotFoundError(f"there is no AE title '{into}' that keeps what it gets: {told}")

    def _any_title(self) -> str:
        """Return who asks where nothing is to come: a PACS may know only those that keep."""
        titles = [*self._keepers(), *self._settings.ae_titles]
        if not titles:
            raise NotFoundError("there is no AE title to ask as: configure one")
        return titles[0]


class _Run:
    """One fetch: what is missing of each series is asked for until it is here."""

    def __init__(
        self,
        archive: Archive,
        deposit: Deposit,
        stopping: threading.Event,
        present: Callable[[Sequence[str]], set[str]],
    ) -> None:
        self._archive = archive
        self._deposit = deposit
        self._stopping = stopping
        self._present = present
        self._problems: Counter[str] = Counter()
        self._uids: list[str] = []
        self._looked_at = 0.0
        self._is_known = False
        self.progress = Progress(series=0, wanted=0, left_out=0, before=0)

    @property
    def number(self) -> int:
        """What its instances are told to have come by, as an association has one."""
        return self._deposit.number

    @property
    def is_whole(self) -> bool:
        """Whether all is here that the source has of it; False before that is known."""
        found = self.progress
        return self._is_known and found.before + found.fetched >= found.wanted

    def fetch(self, found: Sequence[ElsewhereSeries]) -> Iterator[Progress]:
        """Have these series come."""
        taken = {one.uid: self._taken(one) for one in found}
        # Each once, also where two series of a broken device have the same one.
        self._uids = list(dict.fromkeys(each.uid for some in taken.values() for each in some))
        self.progress = Progress(
            series=len(found),
            wanted=len(self._uids),
            left_out=sum(len(one.instances) - len(taken[one.uid]) for one in found),
            before=len(self._present(self._uids)),
        )
        self._is_known = True
        yield self.progress
        for one in found:
            yield from self._series(one, taken[one.uid])
        self.look()
        yield self.progress

    def judge(self, source: str) -> None:
        """Raise what is missing, if anything is."""
        if self.is_whole:
            return
        found = self.progress
        why = [f"{problem} ({count}x)" for problem, count in self._problems.most_common(3)]
        # Of what it sends to our listener, that knows why.
        why = why or ["`dicom-adapter doctor` says whether they were refused here"]
        missing = found.wanted - found.before - found.fetched
        raise UnavailableError(
            f"{missing} of {found.wanted} instances did not come from {source}"
            f": {'; '.join(why)}; the same once more asks for these alone"
        )

    def _taken(self, series: ElsewhereSeries) -> list[ElsewhereInstance]:
        return [
            one
            for one in series.instances
            if not one.sop_class_uid or self._deposit.takes(one.sop_class_uid)
        ]

    def _series(
        self, series: ElsewhereSeries, taken: Sequence[ElsewhereInstance]
    ) -> Iterator[Progress]:
        tries, left = 0, len(taken) + 1
        trouble: UnavailableError | None = None
        refused: Counter[str] = Counter()
        while missing := self._missing(taken):
            tries = tries + 1 if len(missing) == left else 1
            left = len(missing)
            if tries > ATTEMPTS:
                self._problems += refused
                # Where it gave up because of what was refused here, that is why.
                if trouble is not None and not refused:
                    raise trouble
                return
            if trouble is not None or tries > 1:
                yield self._noted(trouble)
                if self._stopping.wait(pause_after(tries - 1).total_seconds()):
                    raise UnavailableError("the service stops")
            trouble = None
            refused.clear()
            try:
                yield from self._retrieved(series, missing, refused)
            except UnavailableError as error:
                trouble = error

    def _missing(self, taken: Sequence[ElsewhereInstance]) -> list[ElsewhereInstance]:
        here = self._present([one.uid for one in taken])
        return [one for one in taken if one.uid not in here]

    def _noted(self, trouble: UnavailableError | None) -> Progress:
        self.look()
        why = str(trouble) if trouble else "not all of a series has come"
        return replace(self.progress, note=f"{why}: asked once more")

    def _retrieved(
        self,
        series: ElsewhereSeries,
        missing: Sequence[ElsewhereInstance],
        refused: Counter[str],
    ) -> Iterator[Progress]:
        for problem in self._archive.retrieve(series, missing, self._deposit):
            if problem:
                refused[problem] += 1
            if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                self.look()
                yield self.progress

    def look(self) -> None:
        """See how much is here by now."""
        self._looked_at = time.monotonic()
        here = len(self._present(self._uids))
        self.progress = replace(self.progress, fetched=max(here - self.progress.before, 0))
