"""Figures of the torture, and how long it lasts."""

import os
import shutil
import subprocess
from collections import Counter
from functools import cache

import pytest

from tests.torture.tally import PROPERTY, Tally, summary


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "first: takes longest, so it is begun first")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that nobody waits for it alone."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, where no process may look into another."""
    if item.get_closest_marker("strace") is not None and not _may_trace():
        pytest.skip("no process may be traced here (ptrace)")


@cache
def _may_trace() -> bool:
    # Where it is not installed, that is said elsewhere.
    if shutil.which("strace") is None:
        return True
    words = ["strace", "--trace=none", "true"]
    return not subprocess.run(words, check=False, capture_output=True).returncode


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
