"""Makes the tables of docs/conformance.md from the program itself.

`python -m tests.docs.conformance` brings the page up to date.
"""

from collections.abc import Iterable
from pathlib import Path

from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]
from pynetdicom import AllStoragePresentationContexts

from dicom_adapter import errors
from dicom_adapter.config import Settings
from dicom_adapter.config.units import format_size
from dicom_adapter.receive import status
from dicom_adapter.receive.dimse import LONGEST_COMMAND_SET
from dicom_adapter.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_adapter.receive.pdu import LONGEST_ASSOCIATE_RQ
from dicom_adapter.receive.policy import is_transfer_syntax

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

VERIFICATION = "1.2.840.10008.1.1"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sop_classes() -> str:
    """Return every SOP class that is accepted, Verification first."""
    storage = sorted(str(c.abstract_syntax) for c in AllStoragePresentationContexts)
    rows = [(UID(uid).name, f"`{uid}`", "Yes") for uid in (VERIFICATION, *storage)]
    return table(("SOP Class Name", "SOP Class UID", "SCP"), rows)


def transfer_syntaxes() -> str:
    """Return every transfer syntax that an instance is stored in."""
    rows = [(UID(uid).name, f"`{uid}`") for uid in UID_dictionary if is_transfer_syntax(uid)]
    return table(("Transfer Syntax Name", "Transfer Syntax UID"), rows)


def statuses() -> str:
    """Return every status that a C-STORE is answered with."""
    refusals = [
        (error.__doc__ or "", status.status_of(error("")))
        for error in (
            errors.NoInstanceUIDError,
            errors.UnsupportedClassError,
            errors.OutOfResourcesError,
            errors.MismatchedInstanceError,
            errors.UnreadableInstanceError,
        )
    ]
    rows = [
        (
            "Success",
            f"`0x{status.SUCCESS:04X}`",
            "The instance is stored, or deliberately ignored.",
        ),
        *(("Failure", f"`0x{code:04X}`", meaning) for meaning, code in refusals),
    ]
    return table(("Service Status", "Status Code", "Meaning"), rows)


def identification() -> str:
    """Return how the implementation names itself."""
    rows = [
        ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
        ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
    ]
    return table(("Item", "Value"), rows)


def limits() -> str:
    """Return the association limits by default."""
    dicom = Settings().dicom
    rows = [
        ("Maximum PDU size received", f"{dicom.max_pdu} bytes", "`dicom.max_pdu`"),
        (
            "Maximum number of simultaneous associations",
            str(dicom.max_associations),
            "`dicom.max_associations`",
        ),
        ("Maximum number of outstanding asynchronous transactions", "1", "-"),
        (
            "Wait for an association to be asked for",
            f"{dicom.timeouts.association:.0f} s",
            "`dicom.timeouts.association`",
        ),
        ("Wait for the next message", f"{dicom.timeouts.idle:.0f} s", "`dicom.timeouts.idle`"),
        (
            "Wait for the next byte of a message",
            f"{dicom.timeouts.progress:.0f} s",
            "`dicom.timeouts.progress`",
        ),
        ("Least rate of a message", format_size(dicom.min_rate) + " a second", "`dicom.min_rate`"),
        ("Longest data set", format_size(dicom.max_instance), "`dicom.max_instance`"),
        ("Longest command set", format_size(LONGEST_COMMAND_SET), "-"),
        ("Longest A-ASSOCIATE-RQ", format_size(LONGEST_ASSOCIATE_RQ), "-"),
    ]
    return table(("Limit", "Default", "Configured by"), rows)


TABLES = {
    "sop-classes": sop_classes,
    "transfer-syntaxes": transfer_syntaxes,
    "statuses": statuses,
    "identification": identification,
    "limits": limits,
}


def updated(page: str) -> str:
    """Return a page with every table made anew between its marks."""
    for name, make in TABLES.items():
        before, begin, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (begin and end):
            raise LookupError(f"{PAGE} has no place for the table {name}")
        page = f"{before}{begin}{make()}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
