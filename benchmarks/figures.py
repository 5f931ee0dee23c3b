"""The figures to reach, and how far this run's are from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.crowd import Crowds
from benchmarks.hostile import Cost
from benchmarks.receivers import ORTHANC, POWER_LOSS, PROCESS_CRASH, STOCK, STORESCP
from benchmarks.series import CT, MR
from benchmarks.storm import PER_SECOND
from benchmarks.throughput import AS_SHIPPED, NODELAY, Rounds

# From here on decimals say nothing.
_NO_DECIMALS = 100


def shown(value: float) -> str:
    """Return a number with the decimals that say something."""
    return f"{value:.{0 if value >= _NO_DECIMALS else 2}f}"


@dataclass(frozen=True)
class Figure:
    """What is to be reached: at least, or else less than, a bound."""

    name: str
    value: float
    bound: float
    unit: str = "x"
    at_least: bool = True

    @property
    def is_reached(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bound if self.at_least else self.value < self.bound

    @property
    def verdict(self) -> str:
        """Whether it is reached, or by how much it is missed."""
        if self.is_reached:
            return "reached"
        ratio = self.value / self.bound
        return f"missed by {1 - ratio if self.at_least else ratio - 1:.0%}"

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "<"
        bound, value = f"{self.bound:g} {self.unit}", f"{shown(self.value)} {self.unit}"
        return f"| {self.name} | {sign} {bound} | {value} | {self.verdict} |"


def of_throughput(rounds: Rounds) -> Iterator[Figure]:
    """Return what is to be reached beside the others."""
    shipped = AS_SHIPPED[0]
    for ours, bound in ((PROCESS_CRASH, 100.0), (POWER_LOSS, 40.0)):
        for other in (STORESCP, ORTHANC):
            value = rounds.times_as_fast(shipped, ours, other)
            yield Figure(f"{shipped}, {_short(ours)}: rate of {other}", value, bound)
    for load in (MR, CT):
        for senders in (1, 4, 16):
            yield from _beside(rounds, load, senders)
        case = NODELAY[load, 4]
        for other, bound in ((ORTHANC, 2.0), (STORESCP, 0.7)):
            value = rounds.times_as_fast(case, POWER_LOSS, other)
            yield Figure(f"{case}, power-loss: rate of {other}", value, bound)


def _beside(rounds: Rounds, load: str, senders: int) -> Iterator[Figure]:
    """Return what process-crash is to reach beside storescp and stock pynetdicom."""
    case, name = NODELAY[load, senders], f"{NODELAY[load, senders]}, process-crash"
    for other, bound in ((STORESCP, 1.2 if senders == 1 else 1.0), (STOCK, 4.0)):
        value = rounds.times_as_fast(case, PROCESS_CRASH, other)
        yield Figure(f"{name}: rate of {other}", value, bound)
    if senders == 1:
        value = rounds.times_the_cpu(case, PROCESS_CRASH, STORESCP)
        yield Figure(f"{name}: CPU of {STORESCP}", value, 1.2, at_least=False)


def _short(name: str) -> str:
    return name.rpartition(", ")[2]


def of_crowds(crowds: Crowds) -> Iterator[Figure]:
    """Return what is to be reached beside many associations."""
    few, many = crowds.few, crowds.many
    name = f"{few.number} idle associations"
    yield _less(f"{name}: CPU", few.cpu_percent, 1, "% of a core")
    yield _less(f"{name}: memory each", few.kilobytes, 40, "KB")
    yield _less(f"{name}: C-ECHO, median", few.echo.median, 2, "ms")
    name = f"{many.number} idle associations"
    yield _less(f"{name}: a good peer's worst C-ECHO", many.echo.worst, 50, "ms")
    yield _less(f"{name}: a good peer's worst C-STORE", many.store.worst, 50, "ms")
    name = f"storm of {PER_SECOND} connections per second"
    yield _less(f"{name}: a good peer's worst C-ECHO", crowds.storm.worst, 50, "ms")


def of_costs(long_instance: Cost, hostile: Mapping[str, Cost]) -> Iterator[Figure]:
    """Return what is to be reached with what is long or means harm."""
    yield _less("one instance of 2 GB: memory", long_instance.megabytes, 32, "MB")
    for name, cost in hostile.items():
        yield _less(f"{name}: memory", cost.megabytes, 16, "MB")
        yield _less(f"{name}: CPU", cost.cpu, 0.5, "s")


def _less(name: str, value: float, bound: float, unit: str) -> Figure:
    return Figure(name, value, bound, unit, at_least=False)


def table(figures: list[Figure]) -> Iterator[str]:
    """Return the figures as lines of a table."""
    reached = sum(figure.is_reached for figure in figures)
    yield f"{reached} of {len(figures)} are reached.\n"
    yield "| Figure | To reach | This run | |\n| --- | ---: | ---: | --- |"
    yield from map(str, figures)
