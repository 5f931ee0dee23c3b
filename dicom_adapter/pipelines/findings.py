"""What is wrong or worth knowing about a series: a code for programs, a message for people."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One finding about a series; the message holds no patient data and no UIDs."""

    code: str
    severity: Severity
    message: str

    def as_json(self) -> dict[str, str]:
        """The finding as it stands in the reports."""
        return {"code": self.code, "severity": self.severity, "message": self.message}


def counted(number: int, noun: str) -> str:
    """The number with its noun: `1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
