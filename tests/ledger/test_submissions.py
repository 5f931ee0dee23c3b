from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from dicom_adapter.ledger import Ledger, events, instances, submissions
from dicom_adapter.model import OnMismatch, Priority, SubmissionState
from tests.ledger import make
from tests.ledger.make import NOW, after

ALL = tuple(SubmissionState)


def test_a_submission_is_read_as_it_was_written(ledger: Ledger) -> None:
    """Every value survives, with the instances in the order in which they were submitted."""
    with ledger.write() as tx:
        ids = [make.kept(tx).id for _ in range(3)][::-1]
        made = make.submit(tx, ids, priority=Priority.HIGHER)
        assert submissions.listed(tx) == [replace(made, instances=3)]
        assert [m.id for m in instances.of_submission(tx, made.id, make.locate)] == ids


def test_a_submission_needs_instances_that_exist(ledger: Ledger) -> None:
    """The database itself refuses a submission of what was never received."""
    with pytest.raises(IntegrityError), ledger.write() as tx:
        make.submit(tx, ["unknown"])


def test_the_most_urgent_comes_first_then_the_oldest(ledger: Ledger) -> None:
    """Due submissions come by priority, and in their order within one."""
    with ledger.write() as tx:
        ids = [make.kept(tx).id]
        normal = [make.submit(tx, ids).id for _ in range(2)]
        urgent = make.submit(tx, ids, priority=Priority.IMMEDIATE, ready_at=after(10)).id
        lower = make.submit(tx, ids, priority=Priority.LOWER).id
        assert [s.id for s in submissions.due(tx, NOW, 10)] == [*normal, lower]
        assert [s.id for s in submissions.due(tx, after(10), 2)] == [urgent, normal[0]]
        assert submissions.next_ready(tx) == NOW


def test_what_the_platform_did_not_answer_is_tried_later(ledger: Ledger) -> None:
    """A postponed submission keeps its error and counts its attempts."""
    with ledger.write() as tx:
        made = make.submit(tx, [make.kept(tx).id])
        submissions.postpone(tx, made.id, after(2), "no answer")
        submissions.postpone(tx, made.id, after(6), "no answer")
        assert submissions.due(tx, after(5), 10) == []
        (found,) = submissions.due(tx, after(6), 10)
        assert submissions.next_ready(tx) == after(6)
    assert (found.attempts, found.error, found.state) == (2, "no answer", "pending")


def test_a_skipped_submission_is_settled_with_its_reason(ledger: Ledger) -> None:
    """What nothing is made of holds nothing, tells why, and is not superseded by what comes."""
    with ledger.write() as tx:
        group = make.join(tx, make.kept(tx))
        ids = [make.kept(tx).id]
        made = make.submit(tx, ids, group_id=group, on_mismatch=OnMismatch.SKIP)
        submissions.skip(tx, made.id, "modality is MR", after(1))
        (found,) = submissions.listed(tx, ALL)
        assert submissions.listed(tx) == []
        assert (found.state, found.error, found.settled_at) == (
            "skipped",
            "modality is MR",
            after(1),
        )
        assert found.on_mismatch == OnMismatch.SKIP
        (event,) = events.of_subject(tx, made.id)
        assert (event.action, event.from_state, event.to_state) == ("skip", "pending", "skipped")
        assert event.reason == "modality is MR"
        make.submit(tx, ids, supersedes=group)
        assert submissions.listed(tx)[0].supersedes is None
        assert not submissions.retry(tx, made.id, after(2), "somebody")


def test_what_a_person_has_discarded_is_not_skipped(ledger: Ledger) -> None:
    """Who was first is right: it stays discarded, and nothing is told twice."""
    with ledger.write() as tx:
        made = make.submit(tx, [make.kept(tx).id])
        submissions.discard(tx, made.id, after(1), "somebody")
        submissions.skip(tx, made.id, "modality is MR", after(2))
        (found,) = submissions.listed(tx, ALL)
        assert (found.state, found.error) == ("discarded", "")
        assert [event.action for event in events.of_subject(tx, made.id)] == ["discard"]


def test_a_refused_submission_is_parked_until_a_person_decides(ledger: Ledger) -> None:
    """A parked submission is not due; a retry makes it so, with its attempts counted anew."""
    with ledger.write() as tx:
        made = make.submit(tx, [make.kept(tx).id])
        submissions.park(tx, made.id, "no such pipeline", after(1))
        assert submissions.due(tx, after(1000), 10) == []
        assert submissions.next_ready(tx) is None
        assert submissions.listed(tx)[0].error == "no such pipeline"
        assert submissions.retry(tx, made.id, after(9), "ann")
        (found,) = submissions.due(tx, after(9), 10)
        told = [(e.action, e.actor, e.to_state) for e in events.of_subject(tx, made.id)]
    assert (found.attempts, found.state) == (0, "pending")
    assert told == [("park", "system", "parked"), ("retry", "ann", "pending")]


def test_what_is_settled_stays_settled(ledger: Ledger) -> None:
    """An accepted or discarded submission is neither retried nor discarded, nor parked again."""
    with ledger.write() as tx:
        ids = [make.kept(tx).id]
        accepted, discarded = make.submit(tx, ids), make.submit(tx, ids)
        submissions.accept(tx, accepted.id, "job-1", after(1))
        assert submissions.discard(tx, discarded.id, after(2), "ann")
        for settled in (accepted, discarded):
            assert not submissions.retry(tx, settled.id, after(3), "ann")
            assert not submissions.discard(tx, settled.id, after(3), "ann")
            submissions.park(tx, settled.id, "too late", after(3))
            submissions.postpone(tx, settled.id, after(3), "too late")
        assert submissions.listed(tx) == []
        found = {s.id: s for s in submissions.listed(tx, ALL)}
        assert [e.action for e in events.of_subject(tx, discarded.id)] == ["discard"]
    assert (found[accepted.id].state, found[accepted.id].job_id) == ("accepted", "job-1")
    assert found[accepted.id].settled_at == after(1)
    assert (found[discarded.id].state, found[discarded.id].settled_at) == ("discarded", after(2))


def test_a_job_that_was_made_during_a_discard_is_told(ledger: Ledger) -> None:
    """When the platform's answer comes after a person's discard, the state says what happened."""
    with ledger.write() as tx:
        made = make.submit(tx, [make.kept(tx).id])
        submissions.discard(tx, made.id, after(1), "ann")
        submissions.accept(tx, made.id, "job-1", after(2))
        (found,) = submissions.listed(tx, ALL)
        told = [(e.action, e.from_state) for e in events.of_subject(tx, made.id)]
    assert (found.state, found.job_id) == ("accepted", "job-1")
    assert told == [("discard", "pending"), ("accept", "discarded")]


def test_an_unknown_submission_is_told(ledger: Ledger) -> None:
    """There is nothing to decide about what does not exist."""
    with ledger.write() as tx:
        assert not submissions.retry(tx, "unknown", NOW, "ann")
        assert not submissions.discard(tx, "unknown", NOW, "ann")
