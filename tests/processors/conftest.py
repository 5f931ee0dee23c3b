"""Fixtures for the tests of job processors."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.processors.scripted import SCRIPTS, Script
from tests.processors.tools import CommandLine


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the service logs; it is not printed, where a command's own output would be."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line."""
    return CommandLine(capsys)


@pytest.fixture
def script() -> Iterator[Script]:
    """The script of AE title TEST; OTHER has one too."""
    SCRIPTS.update(TEST=Script(), OTHER=Script())
    yield SCRIPTS["TEST"]
    SCRIPTS.clear()
