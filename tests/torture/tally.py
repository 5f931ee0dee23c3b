"""What torture has counted, over all tests and all processes that run them."""

from collections import Counter
from dataclasses import dataclass, field

from tests.torture.check import Found
from tests.torture.oracle import Oracle

#: The name of the property by which a test's figures come to the one that prints them.
PROPERTY = "torture"


@dataclass
class Tally:
    """The figures of one test."""

    #: A plain dictionary: it is sent from the process that runs the test.
    figures: dict[str, int] = field(default_factory=dict)

    def add(self, found: Found, oracle: Oracle | None = None, **more: int) -> None:
        """Count what was found, what was sent, and kills or cuts."""
        figures = Counter(self.figures)
        figures.update(lost=len(found.lost), duplicated=len(found.duplicated))
        if oracle is not None:
            figures.update(sent=oracle.times_sent.total(), acknowledged=len(oracle.acknowledged))
        self.figures.update(figures)
        self.count(**more)

    def count(self, **more: int) -> None:
        """Count kills, cuts, faults, or what else the summary names."""
        figures = Counter(self.figures)
        figures.update(more)
        self.figures.update(figures)


def summary(figures: Counter[str]) -> str:
    """Return the figures as one line."""
    return (
        f"{figures['kills']} kills, {figures['cuts']} power cuts and {figures['faults']} faults "
        f"survived; {figures['sent']} instances sent, {figures['acknowledged']} acknowledged, "
        f"{figures['lost']} lost, {figures['duplicated']} duplicated"
    )
