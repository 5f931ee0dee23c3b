from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dicom_adapter.ledger import Ledger, deliveries, events
from dicom_adapter.model import Delivery, DeliveryState
from tests.ledger import make
from tests.ledger.make import NOW, after


def add(tx: Connection, event: int, **values: Any) -> Delivery:  # noqa: ANN401 - a Delivery's fields
    """Record a delivery that is due."""
    whole: dict[str, Any] = {
        "id": uuid4().hex,
        "webhook": "ris",
        "event": event,
        "type": "job.finished",
        "job_id": "j",
        "job": "name",
        "body": "{}",
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "created_at": NOW,
        "queued_at": NOW,
        "ready_at": NOW,
        "settled_at": None,
        "status": None,
        "error": "",
    }
    made = Delivery(**{**whole, **values})
    deliveries.add(tx, made)
    return made


def listed(tx: Connection, *states: DeliveryState) -> list[Delivery]:
    """Return the deliveries in these states, the newest first."""
    return deliveries.listed(tx, states, "", 100)[0]


def test_a_delivery_is_read_as_it_was_written(ledger: Ledger) -> None:
    """Every value survives, and the oldest that is due comes first."""
    with ledger.write() as tx:
        deliveries.register(tx, "ris", 0)
        first, second = add(tx, 1), add(tx, 2)
        add(tx, 3, webhook="other")
        assert deliveries.due(tx, "ris", NOW) == first
        deliveries.note_sent(tx, first.id, 200, NOW)
        assert deliveries.due(tx, "ris", NOW) == second
        # Nothing is sent to one that is not known.
        assert deliveries.due(tx, "other", NOW) is None


def test_an_event_is_told_once_to_each_webhook(ledger: Ledger) -> None:
    """The database itself refuses a second delivery of it."""
    with ledger.write() as tx:
        add(tx, 1)
        add(tx, 1, webhook="other")
    with pytest.raises(IntegrityError), ledger.write() as tx:
        add(tx, 1)


def test_a_hold_is_for_one_webhook(ledger: Ledger) -> None:
    """What waits for it is ready no earlier, and says so; a retry by a person ends it."""
    with ledger.write() as tx:
        for name in ("ris", "other"):
            deliveries.register(tx, name, 0)
        mine, other = add(tx, 1), add(tx, 1, webhook="other")
        deliveries.hold(tx, "ris", after(60))
        assert deliveries.due(tx, "ris", after(59)) is None
        assert deliveries.next_ready(tx, "ris") == after(60)
        assert deliveries.due(tx, "other", NOW) == other
        assert {one.id: one.ready_at for one in listed(tx)} == {mine.id: after(60), other.id: NOW}
        assert deliveries.due(tx, "ris", after(60)) == mine
        deliveries.retry(tx, mine.id, NOW, "ann")
        assert deliveries.due(tx, "ris", NOW) is not None


def test_what_is_settled_stays_settled(ledger: Ledger) -> None:
    """A sent or discarded message is neither retried nor discarded, parked nor postponed."""
    with ledger.write() as tx:
        sent, discarded = add(tx, 1), add(tx, 2)
        deliveries.note_sent(tx, sent.id, 200, after(1))
        assert deliveries.discard(tx, discarded.id, after(2), "ann")
        for settled in (sent, discarded):
            assert not deliveries.retry(tx, settled.id, after(3), "ann")
            assert not deliveries.discard(tx, settled.id, after(3), "ann")
            deliveries.park(tx, settled.id, after(3), 410, "too late")
            deliveries.postpone(tx, settled.id, after(3), 500, "too late")
        found = {one.id: one for one in listed(tx)}
        assert [event.action for event in events.of_subject(tx, discarded.id)] == ["discard"]
        assert events.of_subject(tx, sent.id) == []
    assert (found[sent.id].state, found[sent.id].settled_at) == ("sent", after(1))
    assert (found[discarded.id].state, found[discarded.id].settled_at) == ("discarded", after(2))
    assert found[sent.id].error == found[discarded.id].error == ""


def test_a_message_that_has_arrived_during_a_discard_is_told(ledger: Ledger) -> None:
    """When the answer comes after a person's discard, the state says what happened."""
    with ledger.write() as tx:
        made = add(tx, 1)
        deliveries.discard(tx, made.id, after(1), "ann")
        deliveries.note_sent(tx, made.id, 200, after(2))
        assert [one.state for one in listed(tx)] == ["sent"]


def test_pages_follow_one_another(ledger: Ledger) -> None:
    """Newest first, none twice, none left out; the last says that it is."""
    with ledger.write() as tx:
        made = [add(tx, number).id for number in range(5)]
        first, token = deliveries.listed(tx, (), "ris", 3)
        second, end = deliveries.listed(tx, (), "ris", 3, token)
    assert [one.id for one in [*first, *second]] == made[::-1]
    assert end is None


def test_what_is_known_of_a_deleted_job_goes_when_everybody_was_told(ledger: Ledger) -> None:
    """It is kept only where somebody is told, and only until then."""
    with ledger.write() as tx:
        job = make.add_job(tx)
        deliveries.remember(tx, job.id)
        deliveries.register(tx, "ris", 0)
        deliveries.register(tx, "late", 0)
        assert tx.exec_driver_sql("SELECT count(*) FROM deleted_jobs").scalar() == 0
        deliveries.remember(tx, job.id)
        last = events.last_number(tx) + 1
        deliveries.advance(tx, last - 1)
        assert tx.exec_driver_sql("SELECT count(*) FROM deleted_jobs").scalar() == 1
        deliveries.advance(tx, last)
        assert tx.exec_driver_sql("SELECT count(*) FROM deleted_jobs").scalar() == 0
