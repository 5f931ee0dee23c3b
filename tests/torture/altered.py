"""The service with something altered that a test cannot alter from outside.

`python -m tests.torture.altered NAME serve ...` runs it.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from dicom_adapter import clock
from dicom_adapter.cli import main
from dicom_adapter.ledger import database

#: Holds how many seconds the wall clock is ahead, in the folder that the service is started in.
AHEAD = Path("ahead")
#: How long an impatient service waits for its ledger, in seconds.
PATIENCE_SECONDS = 1.0


def _ahead() -> float:
    with suppress(OSError, ValueError):
        return float(AHEAD.read_text("utf-8"))
    return 0.0


def _stepped() -> None:
    # For the service's own clock alone: gRPC's deadlines are compared with the real one.
    stepped = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=_ahead()))
    vars(clock)["datetime"] = stepped


def _impatient() -> None:
    database.LONGEST_WAIT_SECONDS = PATIENCE_SECONDS


ALTERED: dict[str, Callable[[], None]] = {"stepped": _stepped, "impatient": _impatient}

if __name__ == "__main__":
    ALTERED[sys.argv.pop(1)]()
    sys.exit(main())
