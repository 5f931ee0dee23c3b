"""Fixtures of the receiving tests."""

from collections.abc import Iterator

import pytest
import structlog

from tests.receive.support import Log


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that is logged during the test, down to debug."""
    before = structlog.get_config()
    captured = Log()
    structlog.configure(
        processors=[captured], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    yield captured
    structlog.configure(**before)
