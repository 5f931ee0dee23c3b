from dicom_adapter.ledger import Ledger, events
from dicom_adapter.model import Event
from tests.ledger.make import NOW, after


def test_the_audit_trail_keeps_the_order(ledger: Ledger) -> None:
    """Events are numbered as they come, also of equal time, and read on from any number."""
    with ledger.write() as tx:
        assert events.last_number(tx) == 0
        assert events.newest_time(tx) is None
        for number in range(4):
            events.add(
                tx,
                "group" if number == 2 else "job",
                f"s{number % 2}",
                "claim",
                source="in_queue",
                target="processing",
                at=after(1) if number else NOW,
                actor="ann",
                reason="why",
            )
        assert events.last_number(tx) == 4
        assert events.newest_time(tx) == after(1)
        assert [event.number for event in events.after(tx, 0, "job")] == [1, 2, 4]
        assert [event.number for event in events.after(tx, 1, "job", limit=1)] == [2]
        assert [event.number for event in events.of_subject(tx, "s1")] == [2, 4]
        assert events.after(tx, 4, "job") == []
        assert events.after(tx, 3, "job") == [
            Event(4, after(1), "ann", "job", "s1", "claim", "in_queue", "processing", "why")
        ]
