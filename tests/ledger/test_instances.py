from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from dicom_adapter.ledger import Ledger, events, groups, instances, stock, submissions
from dicom_adapter.model import GroupState, InstanceState, Received, Resend
from tests.ledger import make
from tests.ledger.make import NOW, after


def test_an_instance_is_read_as_it_was_written(ledger: Ledger) -> None:
    """Every value of an instance, to the microsecond, survives the ledger."""
    with ledger.write() as tx:
        plain = make.add_instance(tx, received_at=NOW.replace(microsecond=123456))
        empty = make.instance(instance_number=None, size=2**40, received_at=plain.received_at)
        instances.record(tx, [Received(empty, ("ARCHIVE", 65535))])
    with ledger.read() as tx:
        found = instances.received(tx, "TEST", after(1), 10, make.locate)
        row = tx.execute(
            text("SELECT move_originator_ae_title, move_originator_message_id FROM instances")
        ).all()
    assert found == [(plain, 0), (empty, 0)]
    assert row == [(None, None), ("ARCHIVE", 65535)]


def test_the_processor_gets_instances_in_the_order_of_their_arrival(ledger: Ledger) -> None:
    """Due instances come by arrival, also of equal time, and only those of the AE title."""
    with ledger.write() as tx:
        made = [make.add_instance(tx) for _ in range(5)]
        make.add_instance(tx, ae_title="OTHER")
        make.add_instance(tx, received_at=after(1))
    with ledger.read() as tx:
        found = instances.received(tx, "TEST", NOW, 3, make.locate)
        everything = instances.received(tx, "TEST", NOW, 100, make.locate)
        nothing = instances.received(tx, "TEST", after(-0.000001), 100, make.locate)
    assert [instance for instance, _ in found] == made[:3]
    assert [instance for instance, _ in everything] == made
    assert nothing == []


def test_a_failed_instance_comes_again_when_its_time_has_come(ledger: Ledger) -> None:
    """A postponed instance is due at its new time, with the count of the failures."""
    with ledger.write() as tx:
        made = make.add_instance(tx)
        instances.postpone(tx, made.id, 2, after(60), "it failed")
    with ledger.read() as tx:
        assert instances.received(tx, "TEST", after(59), 10, make.locate) == []
        assert instances.received(tx, "TEST", after(60), 10, make.locate) == [(made, 2)]
        assert instances.next_ready(tx, "TEST") == after(60)
        assert instances.next_ready(tx, "OTHER") is None


def test_the_same_bytes_again_change_nothing_while_they_are_undecided(ledger: Ledger) -> None:
    """As long as they wait, are set aside, or are in a group that is not closed."""
    with ledger.write() as tx:
        made = make.add_instance(tx)
        assert make.again(tx, made) == "nothing"
        others = (
            replace(made, ae_title="OTHER"),
            replace(made, sop_instance_uid="1.2"),
            replace(made, sha256="f" * 64),
        )
        assert [make.again(tx, other) for other in others] == ["new"] * 3
        instances.handled(tx, [made.id])
        assert make.again(tx, made) == "nothing"
        group = make.join(tx, made)
        assert make.again(tx, made) == "nothing"
        groups.close(tx, group, GroupState.PARKED, at=NOW, actor="system")
        assert make.again(tx, made) == "nothing"
        aside = make.add_instance(tx)
        instances.quarantine(tx, aside.id, "no PatientID", 5, NOW)
        assert make.again(tx, aside) == "nothing"


@pytest.mark.parametrize("target", [GroupState.DISPATCHED, GroupState.DISCARDED])
def test_the_same_bytes_again_are_due_again_after_their_group_was_closed(
    ledger: Ledger, target: GroupState
) -> None:
    """Under the same id, so there is never a second file; not with `resend: ignore`."""
    with ledger.write() as tx:
        made = make.kept(tx)
        groups.close(tx, make.join(tx, made), target, at=NOW, actor="system")
        assert make.again(tx, made) == "due"
        assert make.again(tx, made, Resend.IGNORE) == "nothing"
        instances.release(tx, [made.id], NOW)
        assert make.again(tx, made) == "due"
        assert make.again(tx, made, Resend.IGNORE) == "nothing"
        stock.begin_reclaim(tx, after(1), 10)
        assert make.again(tx, made) == "new"
        stock.end_reclaim(tx, [made.id], NOW)
        assert make.again(tx, made) == "new"


def test_what_comes_again_is_taken_back_from_the_reclaimer(ledger: Ledger) -> None:
    """And let go anew only by its processor; the history says that it came again."""
    with ledger.write() as tx:
        made = make.kept(tx)
        instances.release(tx, [made.id], NOW)
        later = replace(made, id="later", received_at=after(9), association=8)
        (told,) = instances.record(tx, [Received(later)])
        assert (told.instance_id, told.is_new) == (made.id, False)
        assert stock.begin_reclaim(tx, after(100), 10) == []
        ((found, attempts),) = instances.received(tx, "TEST", after(9), 10, make.locate)
        assert (found, attempts) == (replace(made, received_at=after(9), association=8), 0)
        history = [(event.action, event.from_state) for event in events.of_subject(tx, made.id)]
        assert history == [("resend", "released")]


def test_other_bytes_under_the_same_uid_are_recorded_with_an_event(ledger: Ledger) -> None:
    """Which names the first of them."""
    with ledger.write() as tx:
        first = make.add_instance(tx)
        second = replace(first, id="second", sha256="f" * 64)
        (told,) = instances.record(tx, [Received(second)])
        assert told.is_new
        (event,) = events.of_subject(tx, "second")
    assert (event.action, event.reason) == (
        "variant",
        f"other bytes than {first.id}, which has the same SOP Instance UID",
    )


def test_instances_that_come_together_are_recorded_in_their_order(ledger: Ledger) -> None:
    """Of the same bytes among them the first is recorded, and none that waits here already."""
    first, second = make.instance(sop_instance_uid="1.1"), make.instance(sop_instance_uid="1.2")
    with ledger.write() as tx:
        waiting = make.add_instance(tx)
        came = [
            second,
            replace(waiting, id="again"),
            first,
            replace(second, id="twice"),
            replace(first, id="other bytes", sha256="f" * 64),
            replace(first, id="other title", ae_title="OTHER"),
        ]
        told = instances.record(tx, [Received(instance) for instance in came])
        assert instances.record(tx, []) == []
        due = [found.id for found, _ in instances.received(tx, "TEST", NOW, 10, make.locate)]
    assert [one.is_new for one in told] == [True, False, True, False, True, True]
    assert [told[1].instance_id, told[3].instance_id] == [waiting.id, second.id]
    assert due == [waiting.id, second.id, first.id, "other bytes"]


def test_duplicates_are_found_by_their_index(ledger: Ledger) -> None:
    """However much waits, nothing but the rows of these very instances is looked at."""
    statements: list[str] = []
    with ledger.write() as tx:
        make.add_instance(tx)
        driver: Any = tx.connection.driver_connection
        driver.set_trace_callback(statements.append)
        instances.record(tx, [Received(make.instance())])
        driver.set_trace_callback(None)
        (select,) = [text for text in statements if text.startswith("SELECT")]
        plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {select}")]
    (used,) = [step for step in plan if "instances" in step]
    assert "ix_instances_identity (ae_title=? AND sop_instance_uid=?)" in used


def test_association_numbers_go_on_after_a_restart(ledger: Ledger) -> None:
    """The highest number is remembered, also when its instances came out of order."""
    with ledger.write() as tx:
        assert instances.last_association(tx) == 0
        for number in (3, 12, 7):
            make.add_instance(tx, association=number)
        assert instances.last_association(tx) == 12


def test_quarantine_is_left_by_retry_or_discard_once(ledger: Ledger) -> None:
    """What is set aside goes back to its processor or to the reclaimer, each with an event."""
    with ledger.write() as tx:
        first, second = make.add_instance(tx), make.add_instance(tx)
        for made in (first, second):
            instances.quarantine(tx, made.id, "no PatientID", 5, NOW)
    with ledger.read() as tx:
        found = instances.quarantined(tx, make.locate)
        assert [(q.instance, q.reason, q.attempts) for q in found] == [
            (first, "no PatientID", 5),
            (second, "no PatientID", 5),
        ]
    with ledger.write() as tx:
        assert instances.retry_quarantined(tx, first.id, after(1), "ann")
        assert not instances.retry_quarantined(tx, first.id, after(1), "ann")
        assert not instances.discard_quarantined(tx, first.id, after(1), "ann")
        assert instances.discard_quarantined(tx, second.id, after(1), "ann")
        assert not instances.retry_quarantined(tx, "unknown", NOW, "ann")
        assert instances.received(tx, "TEST", after(1), 10, make.locate) == [(first, 0)]
        told = [(e.action, e.actor, e.to_state) for e in events.of_subject(tx, second.id)]
    assert told == [("quarantine", "system", "quarantined"), ("discard", "ann", "released")]
    assert make.reclaimable(ledger, after(1)) == [second.id]


@pytest.mark.parametrize("release_first", [True, False])
def test_two_submissions_must_both_be_settled(ledger: Ledger, *, release_first: bool) -> None:
    """An instance of two submissions may go when both are settled and it is released.

    In whatever order that happens.
    """
    with ledger.write() as tx:
        shared = make.kept(tx)
        first, second = make.submit(tx, [shared.id]), make.submit(tx, [shared.id])
        if release_first:
            instances.release(tx, [shared.id], after(1))
    assert make.reclaimable(ledger, after(9)) == []
    with ledger.write() as tx:
        submissions.accept(tx, first.id, "job", after(2))
    assert make.reclaimable(ledger, after(9)) == []
    with ledger.write() as tx:
        submissions.park(tx, second.id, "no such pipeline", after(3))
    assert make.reclaimable(ledger, after(9)) == []
    with ledger.write() as tx:
        assert submissions.discard(tx, second.id, after(4), "ann")
    if not release_first:
        assert make.reclaimable(ledger, after(9)) == []
        with ledger.write() as tx:
            instances.release(tx, [shared.id], after(4))
    assert make.reclaimable(ledger, after(3.9)) == []
    assert make.reclaimable(ledger, after(4)) == [shared.id]


def test_a_submission_after_the_release_holds_the_instance_again(ledger: Ledger) -> None:
    """A processor may submit what it has let go, as long as it is there: then it stays."""
    with ledger.write() as tx:
        made = make.kept(tx)
        instances.release(tx, [made.id], NOW)
        later = make.submit(tx, [made.id])
    assert make.reclaimable(ledger, after(9)) == []
    with ledger.write() as tx:
        submissions.accept(tx, later.id, "job", after(1))
    assert make.reclaimable(ledger, after(9)) == [made.id]


def test_the_oldest_goes_first_and_is_never_taken_twice(ledger: Ledger) -> None:
    """The reclaimer takes what may go in the order in which that came true, in portions."""
    with ledger.write() as tx:
        made = [make.kept(tx) for _ in range(4)]
        instances.release(tx, [made[2].id], after(1))
        instances.release(tx, [made[0].id, made[3].id], after(2))
        assert stock.next_reclaimable(tx) == after(1)
        assert stock.begin_reclaim(tx, after(2), 2) == [made[2].id, made[0].id]
        assert stock.begin_reclaim(tx, after(2), 2) == [made[3].id]
        assert stock.begin_reclaim(tx, after(2), 2) == []
        assert stock.next_reclaimable(tx) is None
        assert stock.reclaiming(tx) == [made[0].id, made[2].id, made[3].id]
        stock.end_reclaim(tx, [made[0].id, made[2].id], after(3))
        assert stock.reclaiming(tx) == [made[3].id]
        assert make.state_of(tx, made[0].id) == InstanceState.RECLAIMED


def test_what_is_gone_cannot_be_used(ledger: Ledger) -> None:
    """An instance is there until the reclaimer marks it, also when it is released."""
    with ledger.write() as tx:
        made = make.kept(tx)
        assert stock.kept(tx, [made.id, "unknown"]) == {(made.id, made.sha256)}
        instances.release(tx, [made.id], NOW)
        assert stock.kept(tx, [made.id]) == {(made.id, made.sha256)}
        assert stock.kept(tx, map(str, range(40_000))) == set()
        stock.begin_reclaim(tx, NOW, 1)
        assert stock.kept(tx, [made.id]) == set()


def test_what_is_not_released_is_never_taken(ledger: Ledger) -> None:
    """Waiting, kept and quarantined instances do not go, however long ago they came."""
    with ledger.write() as tx:
        make.add_instance(tx)
        make.kept(tx)
        instances.quarantine(tx, make.add_instance(tx).id, "why", 0, NOW)
    assert make.reclaimable(ledger, after(1e9)) == []


def test_why_each_instance_is_kept(ledger: Ledger) -> None:
    """Everything on the disk is counted under one reason, with its size and its oldest."""
    with ledger.write() as tx:
        make.add_instance(tx, received_at=after(5))
        make.add_instance(tx, size=24)
        instances.quarantine(tx, make.add_instance(tx).id, "why", 0, NOW)
        for state in (GroupState.PARKED, GroupState.DISPATCHED, GroupState.OPEN):
            member = make.kept(tx)
            group = make.join(tx, member, state)
            if state != GroupState.OPEN:
                groups.close(tx, group, state, at=NOW, actor="system")
        pending, delivered, going, gone = (make.kept(tx) for _ in range(4))
        make.submit(tx, [pending.id])
        instances.release(tx, [pending.id], NOW)
        instances.release(tx, [gone.id], after(1))
        stock.end_reclaim(tx, stock.begin_reclaim(tx, after(1), 1), after(1))
        instances.release(tx, [going.id], after(2))
        stock.begin_reclaim(tx, after(2), 1)
        instances.release(tx, [delivered.id], after(3))
        found = {k.reason: (k.instances, k.size, k.oldest) for k in stock.keeping(tx)}
    one = (1, 1000, NOW)
    assert found == {
        "waiting for its job processor": (2, 1024, NOW),
        "in quarantine": one,
        "in a parked group": one,
        "in an open group": one,
        "kept by its job processor": one,
        "waiting for their submission to be accepted": one,
        "being removed": one,
        "delivered, until `retain` has passed": one,
    }


def test_a_series_is_what_is_kept_of_it_in_the_order_of_its_arrival(ledger: Ledger) -> None:
    """By the AE title, study and series, in whatever state it still has its file."""
    with ledger.write() as tx:
        others = ("ae_title", "study_instance_uid", "series_instance_uid")
        for name in others:
            make.kept(tx, **{name: "OTHER"})
        # As they came, whatever their ids are.
        came, kept, aside, released, going, gone = (make.kept(tx, id=letter) for letter in "fedcba")
        states = {came: "received", kept: "kept", aside: "quarantined", released: "released"}
        for one, state in (states | {going: "reclaiming", gone: "reclaimed"}).items():
            tx.execute(text(f"UPDATE instances SET state = '{state}' WHERE id = '{one.id}'"))  # noqa: S608 - our own
        found = stock.of_series(tx, "TEST", "1.2.3", "1.2.3.4")
        assert sorted(found) == ["c", "d", "e", "f"]
        ids = [one.id for one in instances.known(tx, [*found, "b", "z"], make.locate)]
        assert ids == ["f", "e", "d", "c", "b"]
