"""How an item has ended, as the ledger is told of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dicom_adapter.platform.executor import Ended


@dataclass(frozen=True)
class Ending:
    """How an item has ended."""

    at: datetime
    #: How its pipeline has; None where that was not run.
    ended: Ended | None
    reason: str = ""
    error: str = ""

    def values(self) -> Mapping[str, Any]:
        """Return what the item's row says of it."""
        told = {"reason": self.reason, "error": self.error}
        if self.ended is None:
            return told
        return {**told, "exit_code": self.ended.exit_code, **asdict(self.ended.used)}

    def cancelled_by(self) -> Mapping[str, str]:
        """Return who has cancelled it, and why, where nobody here has."""
        if self.ended is None or self.ended.ran_at is None:
            return {"why": "items were cancelled"}
        return {"actor": self.ended.ran_at.executor, "why": self.ended.told}
