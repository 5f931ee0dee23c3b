"""The ledger under test, on each backend there is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_adapter.ledger import Ledger

#: The backends that keep the contract: how each names a new, empty database for a test.
BACKENDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'ledger.db'}",
}


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new ledger is to be made."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An open and empty ledger."""
    opened = Ledger(url)
    opened.open()
    yield opened
    opened.close()
