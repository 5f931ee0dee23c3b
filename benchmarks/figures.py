"""The figures to reach, and how far this run's are from them."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.receivers import ORTHANC, POWER_LOSS, PROCESS_CRASH, STOCK, STORESCP
from benchmarks.series import CT, MR
from benchmarks.throughput import AS_SHIPPED, NODELAY, Rounds


@dataclass(frozen=True)
class Figure:
    """What is to be reached: at least, or else less than, a bound."""

    name: str
    value: float
    bound: float
    unit: str = "x"
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """Whether it is reached, or by how much it is missed."""
        if self.value >= self.bound if self.at_least else self.value < self.bound:
            return "reached"
        ratio = self.value / self.bound
        return f"missed by {1 - ratio if self.at_least else ratio - 1:.0%}"

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "<"
        bound, value = f"{self.bound:g} {self.unit}", f"{self.value:.3g} {self.unit}"
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


def table(figures: list[Figure]) -> Iterator[str]:
    """Return the figures as lines of a table."""
    yield "| Figure | To reach | This run | |\n| --- | ---: | ---: | --- |"
    yield from map(str, figures)
