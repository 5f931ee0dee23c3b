"""Which instances of a series a job gets, and in which order; nothing here reads a file or a table.

A range is over places. In the order of numbers a place is an InstanceNumber, as people see it on
their screens; in the order of positions it is counted from 1 along the stack, so that there every
instance has a place of its own, whatever its number.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice, pairwise

from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import Duplicates, IndexedInstance, Orientation, Position

#: No more of what is missing is named.
MOST_NAMED = 1000
#: No more runs of numbers are written down: people get to read them, and headers to carry them.
MOST_RUNS = 20
# In mm, and of a unit vector: nearer than this is the same.
_SAME_PLACE = 1e-3
_SAME_DIRECTION = 1e-3
_BY_POSITION = ", by position"
_STEPS = re.compile(r"(-?[0-9]{1,10})(?::(-?[0-9]{1,10})(?::(-?[0-9]{1,10}))?)?")


class Order(StrEnum):
    """What the places of a series are."""

    NUMBER = "number"
    POSITION = "position"


class Whole(StrEnum):
    """Ranges that name no place."""

    #: The first run of consecutive places.
    AUTO = "auto"
    #: The longest one.
    LONGEST = "auto=longest"
    ALL = "all"


@dataclass(frozen=True)
class Steps:
    """From one place to another, in steps; a negative step is in reverse."""

    start: int
    end: int
    delta: int

    def __post_init__(self) -> None:
        """Refuse what never comes to its end."""
        if not self.delta:
            raise InvalidArgumentError("range", f"'{self}' never gets on: a delta is not 0")
        if (self.end - self.start) * self.delta < 0:
            cure = f"{self.start}:{self.end}:{-self.delta}"
            raise InvalidArgumentError("range", f"'{self}' leads away from its end: use {cure}")
        if (self.end - self.start) % self.delta:
            last = self.end - math.fmod(self.end - self.start, self.delta)
            raise InvalidArgumentError(
                "range",
                f"'{self}' does not meet its end in steps of {self.delta}: end it at {last:.0f}",
            )

    def __str__(self) -> str:
        return f"{self.start}:{self.end}:{self.delta}"

    @property
    def places(self) -> range:
        """The places, in their order."""
        return range(self.start, self.end + (1 if self.delta > 0 else -1), self.delta)


Range = Whole | Steps


def range_of(text: str) -> Range:
    """Return the range that a text names; empty: `auto`.

    Raises:
        InvalidArgumentError: it names none.
    """
    if text in {"", *Whole}:
        return Whole(text or Whole.AUTO)
    found = _STEPS.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(
            "range",
            f"'{text}' is none: use auto, auto=longest, all, START:END or START:END:DELTA",
        )
    start = int(found[1])
    return Steps(start, int(found[2] or start), int(found[3] or 1))


def label_of(wanted: str, order: Order) -> str:
    """Return how a job says what was chosen of a series."""
    return f"{wanted}{_BY_POSITION}" if order is Order.POSITION else wanted


def open_range(label: str) -> tuple[Whole, Order] | None:
    """Return a range that may choose more of a series that has grown; None for any other label."""
    order = Order.POSITION if label.endswith(_BY_POSITION) else Order.NUMBER
    wanted = label.removesuffix(_BY_POSITION)
    return (Whole(wanted), order) if wanted in tuple(Whole) else None


@dataclass(frozen=True)
class Selection:
    """What a range chooses of a series, in the order in which a pipeline gets it."""

    range: str
    order: Order
    instances: tuple[IndexedInstance, ...]
    #: Places between the first and the last chosen one that no instance has.
    missing: tuple[int, ...] = ()
    #: Places that several instances have.
    doubled: tuple[int, ...] = ()
    #: How many instances have no place at all.
    unplaced: int = 0
    #: Why no job can be made of it.
    problems: tuple[str, ...] = ()
    #: What people should know.
    notes: tuple[str, ...] = ()


def select(
    found: Sequence[IndexedInstance], wanted: Range, order: Order = Order.NUMBER
) -> Selection:
    """Choose of the instances of one series.

    Of several copies of one SOP instance, the first that came stands for all.
    """
    notes = []
    instances = _unlike(found)
    if len(instances) < len(found):
        notes.append(f"{len(found) - len(instances)} more copies of its instances are left out")
    stack = _Stack.by(order, instances, notes)
    if isinstance(wanted, Steps):
        chosen = stack.steps(wanted)
    elif wanted is Whole.ALL:
        chosen = stack.all()
    else:
        chosen = stack.run(wanted)
    return Selection(
        range=str(wanted),
        order=order,
        instances=tuple(chosen.instances),
        missing=tuple(chosen.missing),
        doubled=stack.doubled,
        unplaced=len(stack.unplaced),
        problems=tuple(chosen.problems),
        notes=(*notes, *chosen.notes),
    )


@dataclass(frozen=True)
class _Chosen:
    instances: Sequence[IndexedInstance] = ()
    missing: Sequence[int] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()


class _Stack:
    """The instances of a series by their places."""

    def __init__(
        self, placed: Sequence[tuple[int, IndexedInstance]], unplaced: Sequence[IndexedInstance]
    ) -> None:
        self._placed = placed
        self.unplaced = unplaced
        counts = Counter(place for place, _ in placed)
        self._places = sorted(counts)
        self.doubled = tuple(place for place in self._places if counts[place] > 1)

    @classmethod
    def by(cls, order: Order, instances: Sequence[IndexedInstance], notes: list[str]) -> "_Stack":
        """Return them in this order."""
        numbered = sorted(instances, key=_by_number)
        if order is Order.NUMBER:
            return cls(
                [(n, one) for one in numbered if (n := one.stored.instance_number) is not None],
                [one for one in numbered if one.stored.instance_number is None],
            )
        sorted_, why = _along(numbered)
        if why:
            notes.append(f"{why}, so they are in the order of their numbers")
        return cls(list(enumerate(sorted_, 1)), [])

    def all(self) -> _Chosen:
        """Choose every instance: those without a place come last."""
        chosen = [*(one for _, one in self._placed), *self.unplaced]
        missing = list(islice(_gaps(self._places), MOST_NAMED))
        return _Chosen(chosen, missing, [] if chosen else ["nothing is kept of the series"])

    def run(self, which: Whole) -> _Chosen:
        """Choose the first, or the longest, run of consecutive places."""
        problems = list(self._unclear(which))
        if problems or not self._places:
            return _Chosen(problems=problems or ["nothing is kept of the series"])
        runs = _runs(self._places)
        run = max(runs, key=len) if which is Whole.LONGEST else runs[0]
        places = set(run)
        left_out = [place for place in self._places if place not in places]
        notes = [f"left out, since they do not follow on: {spans(left_out)}"] if left_out else []
        return _Chosen([one for place, one in self._placed if place in places], notes=notes)

    def _unclear(self, which: Whole) -> Iterator[str]:
        cure = "choose all, or order by position"
        if self.unplaced:
            yield f"{which}: {len(self.unplaced)} instances have no InstanceNumber: {cure}"
        if self.doubled:
            yield f"{which}: several instances have the number {spans(self.doubled)}: {cure}"
        if self._places and self._places[0] <= 0:
            below = [place for place in self._places if place <= 0]
            yield f"{which}: there are numbers below 1: {spans(below)}: {cure}"

    def steps(self, wanted: Steps) -> _Chosen:
        """Choose the named places: each is to be there, once."""
        known = set(self._places)
        missing = list(islice((p for p in wanted.places if p not in known), MOST_NAMED))
        # A range may be far longer than a series: it is never gone through for its own sake.
        twice = [place for place in self.doubled if place in wanted.places]
        problems = []
        if missing:
            cure = "choose a range without them, or have them sent"
            problems.append(f"{wanted}: there is no instance {spans(missing)}: {cure}")
        if twice:
            cure = "choose all, or order by position"
            problems.append(f"{wanted}: several instances have the number {spans(twice)}: {cure}")
        by_place = dict(self._placed)
        here = [by_place[p] for p in wanted.places if p in by_place] if not missing else []
        return _Chosen([] if twice else here, missing, problems)


def spans(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: 1-20, 30."""
    runs = _runs(sorted(numbers))
    written = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join(written[:MOST_RUNS] + ["and more"] * (len(written) > MOST_RUNS))


def _runs(places: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _gaps(places: Sequence[int]) -> Iterator[int]:
    for one, next_ in pairwise(places):
        yield from range(one + 1, next_)


def _by_number(one: IndexedInstance) -> tuple[bool, int, str]:
    number = one.stored.instance_number
    # An id begins with the time of its reception.
    return number is None, number or 0, one.stored.id


def _unlike(found: Sequence[IndexedInstance]) -> list[IndexedInstance]:
    seen = Duplicates.KEEP_FIRST.seen([one.stored for one in found])
    kept = {stored.id for stored in seen}
    return [one for one in found if one.stored.id in kept]


def _along(instances: Sequence[IndexedInstance]) -> tuple[list[IndexedInstance], str]:
    """Return instances by their places along the stack, or as they are and why that cannot be."""
    placements = [one.placement for one in instances]
    if any(place.position is None or place.orientation is None for place in placements):
        return list(instances), "some instances do not say where they lie"
    first = next((place.orientation for place in placements), None)
    if first is None:
        return [], ""
    if any(not _is_same(first, one.placement.orientation) for one in instances):
        return list(instances), "the instances lie in several directions"
    normal = _normal(first)
    heights = {one.stored.id: _height(normal, one.placement.position) for one in instances}
    ordered = sorted(instances, key=lambda one: (heights[one.stored.id], *_by_number(one)))
    if any(heights[b.stored.id] - heights[a.stored.id] < _SAME_PLACE for a, b in pairwise(ordered)):
        return list(instances), "several instances lie in the same place"
    return ordered, ""


def _is_same(one: Orientation, other: Orientation | None) -> bool:
    return other is not None and all(
        abs(a - b) < _SAME_DIRECTION for a, b in zip(one, other, strict=True)
    )


def _normal(of: Orientation) -> Position:
    rx, ry, rz, cx, cy, cz = of
    return ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx


def _height(normal: Position, position: Position | None) -> float:
    # Each has one: those without were told before.
    return sum(a * b for a, b in zip(normal, position or normal, strict=True))
