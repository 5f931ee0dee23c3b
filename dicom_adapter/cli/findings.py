"""What `doctor` finds: a verdict on one thing, and the cure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dicom_adapter.logs import printable

Verdict = Literal["good", "look", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and the cure where it is not good."""

    verdict: Verdict
    subject: str
    found: str
    cure: str = ""


def told(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines that tell findings to people, each cure below what it cures."""
    for finding in findings:
        yield f"{finding.verdict:<5} {finding.subject:<14} {printable(finding.found)}"
        if finding.cure:
            yield f"{'':<5} {'':<14} -> {printable(finding.cure)}"
