"""Figures of the torture, and how long it lasts."""

import os
from collections import Counter

import pytest

from tests.torture.tally import PROPERTY, Tally, summary


@pytest.fixture
def rounds() -> int:
    """How often each thing is done: TORTURE, or once."""
    return int(os.environ.get("TORTURE", "1"))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """The figures of this test, which are printed at the end with those of the others."""
    made = Tally()
    request.node.user_properties.append((PROPERTY, made.figures))
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted."""
    figures: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                figures.update(dict(report.user_properties).get(PROPERTY, {}))
    if figures:
        terminalreporter.write_line(f"torture: {summary(figures)}")
