"""The audit trail as it is given away."""

from itertools import chain
from pathlib import Path

from dicom_adapter.audit import PER_PAGE, AuditTrail, Period
from dicom_adapter.ledger import Ledger, events
from dicom_adapter.model import LOCAL, Event
from tests.ledger.make import after


def ledger_with(folder: Path, count: int) -> Ledger:
    """Return a ledger with so many events, a second apart."""
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    ledger.open()
    with ledger.write() as tx:
        for number in range(1, count + 1):
            events.add(tx, "job", "a", "claim", source="", target="b", at=after(number))
    return ledger


def numbers(trail: AuditTrail, behind: int, period: Period | None = None) -> list[int]:
    """Return the numbers of the events that are given away."""
    pages = trail.pages(LOCAL, behind, period or Period())
    return [event.number for event in chain.from_iterable(pages)]


def test_the_trail_comes_in_pages_and_ends_where_it_began(tmp_path: Path) -> None:
    """Pages are bounded and in order; what happens meanwhile is for the next time."""
    ledger = ledger_with(tmp_path, 2 * PER_PAGE + 1)
    pages = AuditTrail(ledger).pages(LOCAL, 0, Period())
    first = next(pages)
    with ledger.write() as tx:
        events.add(tx, "job", "late", "claim", source="", target="b", at=after(0))
    rest = list(pages)
    assert [len(page) for page in (first, *rest)] == [PER_PAGE, PER_PAGE, 1]
    assert [event.number for page in (first, *rest) for event in page] == list(range(1, 2002))
    assert numbers(AuditTrail(ledger), 2001) == [2002]
    assert numbers(AuditTrail(ledger), 9999) == []
    ledger.close()


def test_a_part_of_the_trail(tmp_path: Path) -> None:
    """Behind a number, from a time on, and before another: each alone and together."""
    ledger = ledger_with(tmp_path, 9)
    trail = AuditTrail(ledger)
    assert numbers(trail, 7) == [8, 9]
    assert numbers(trail, 0, Period(since=after(8))) == [8, 9]
    assert numbers(trail, 0, Period(until=after(3))) == [1, 2]
    assert numbers(trail, 4, Period(since=after(3), until=after(6))) == [5]
    assert numbers(trail, 0, Period(since=after(10))) == []
    ledger.close()


def test_the_trail_names_no_patient(tmp_path: Path) -> None:
    """What another program has said stays in the ledger: it may quote what it has failed on."""
    told = {
        ("job", "fail"): "pipeline_error",
        ("job", "cancel"): "wrong plug-in",
        ("group", "discard"): "merged into 5f0c",
        ("instance", "variant"): "other bytes than 5f0c",
        ("group", "park"): "ValueError: Doe^Jane",
        ("submission", "park"): "no job for Doe^Jane",
        ("instance", "whatever comes"): "Doe^Jane",
    }
    ledger = ledger_with(tmp_path, 0)
    with ledger.write() as tx:
        for (kind, action), why in told.items():
            events.add(tx, kind, "a", action, source="", target="", at=after(0), reason=why)
    given: list[Event] = list(chain.from_iterable(AuditTrail(ledger).pages(LOCAL, 0, Period())))
    assert {(event.kind, event.action): event.reason for event in given} == {
        key: "" if "Jane" in why else why for key, why in told.items()
    }
    ledger.close()
