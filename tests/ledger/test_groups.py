from datetime import timedelta

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from dicom_adapter.ledger import Ledger, events, groups, instances, schema, stock
from dicom_adapter.ledger.groups import Joining
from dicom_adapter.model import GroupState, StoredInstance
from tests.ledger import make
from tests.ledger.make import NOW, after

FIVE = timedelta(seconds=5)


def join(
    tx: Connection, at: float = 0, key: str = "study", max_wait: float | None = None
) -> tuple[str, StoredInstance]:
    """Have an instance arrive and join its group; return both."""
    made = make.kept(tx, received_at=after(at))
    longest = None if max_wait is None else timedelta(seconds=max_wait)
    return make.join(tx, made, key, longest), made


def due(tx: Connection, at: float) -> list[str]:
    """Return the groups that are due at a time."""
    return [group for group, _ in groups.due(tx, "TEST", after(at))]


def test_a_group_is_due_after_its_last_instance(ledger: Ledger) -> None:
    """Each instance moves the deadline, which comes exactly `after` the last one."""
    with ledger.write() as tx:
        group, first = join(tx)
        assert join(tx, 4)[0] == group
        assert join(tx, 7)[0] == group
        assert due(tx, 11.999999) == []
        assert due(tx, 12) == [group]
        assert groups.next_ready(tx, "TEST") == after(12)
        found = groups.get(tx, group, make.locate)
    assert (found.opened_at, found.last_instance_at) == (NOW, after(7))
    assert found.key == "study"
    assert len(found.instances) == 3
    assert found.instances[0] == first


def test_instances_out_of_order_never_bring_the_deadline_forward(ledger: Ledger) -> None:
    """An instance that is handled late, or came at the same time, leaves the deadline."""
    with ledger.write() as tx:
        group, _ = join(tx, 7)
        join(tx, 3)
        join(tx, 7)
        assert groups.next_ready(tx, "TEST") == after(12)
        assert groups.get(tx, group, make.locate).last_instance_at == after(7)


def test_max_wait_caps_a_study_that_never_stops(ledger: Ledger) -> None:
    """The group is due `max_wait` after its first instance, whatever comes."""
    with ledger.write() as tx:
        group, _ = join(tx, max_wait=12)
        for at in (4, 8, 11, 12):
            join(tx, at, max_wait=12)
        assert due(tx, 11.999999) == []
        assert due(tx, 12) == [group]


def test_max_wait_shorter_than_after_rules(ledger: Ledger) -> None:
    """A cap below the sliding timeout is due first, and 0 at once."""
    with ledger.write() as tx:
        short, _ = join(tx, key="short", max_wait=2)
        none, _ = join(tx, key="none", max_wait=0)
        assert due(tx, 0) == [none]
        assert due(tx, 2) == [none, short]


def test_keys_and_ae_titles_part_groups(ledger: Ledger) -> None:
    """One open group exists for each AE title and key, also by the database's own rule."""
    with ledger.write() as tx:
        first, _ = join(tx)
        other_key, _ = join(tx, key="other")
        other_title = make.join(tx, make.kept(tx, ae_title="OTHER"), "study")
        assert len({first, other_key, other_title}) == 3
    with pytest.raises(IntegrityError), ledger.write() as tx:
        tx.execute(text("UPDATE groups SET key = 'study' WHERE key = 'other'"))


def test_instances_that_join_together_are_grouped_as_one_by_one(ledger: Ledger) -> None:
    """Of a batch, each goes into the group of its key, and moves its deadline and no other's."""
    with ledger.write() as tx:
        group, first = join(tx, max_wait=8)
        later, other, title, last = (
            make.kept(tx, received_at=after(seconds), ae_title=ae_title)
            for seconds, ae_title in ((4, "TEST"), (5, "TEST"), (6, "OTHER"), (7, "TEST"))
        )
        keys = {later.id: "study", other.id: "other", title.id: "study", last.id: "study"}
        found = groups.join(
            tx, [Joining(i, keys[i.id], FIVE, FIVE * 10) for i in (later, other, title, last)]
        )
        assert groups.join(tx, []) == []
        members = {id_: groups.get(tx, id_, make.locate).instances for id_ in found}
        seen = {summary.id: summary for summary in groups.summaries(tx)}
    assert found == [group, found[1], found[2], group]
    assert members == {group: (first, later, last), found[1]: (other,), found[2]: (title,)}
    # The first has its max_wait from the instance that opened it.
    assert [seen[id_].ready_at for id_ in found[:3]] == [after(8), after(10), after(11)]
    assert [seen[id_].last_instance_at for id_ in found[:3]] == [after(7), after(5), after(6)]
    assert seen[found[1]].opened_at == after(5)


def test_a_closed_group_takes_nothing_more(ledger: Ledger) -> None:
    """What comes after the hand-over opens a new group of the same key."""
    with ledger.write() as tx:
        first, _ = join(tx)
        assert groups.close(tx, first, GroupState.DISPATCHED, at=after(5), actor="system")
        assert not groups.close(tx, first, GroupState.DISPATCHED, at=after(5), actor="system")
        second, _ = join(tx, 6)
        assert second != first
        assert len(groups.get(tx, first, make.locate).instances) == 1
        assert [event.action for event in events.of_subject(tx, first)] == ["dispatch"]


def test_a_failed_group_waits_for_its_next_turn(ledger: Ledger) -> None:
    """A late instance joins a group that failed, but does not make it due before its pause ends."""
    with ledger.write() as tx:
        group, _ = join(tx, max_wait=5)
        groups.postpone(tx, group, 3, after(60), "it failed")
        join(tx, 6, max_wait=5)
        assert groups.due(tx, "TEST", after(59)) == []
        assert groups.due(tx, "TEST", after(60)) == [(group, 3)]
        (seen,) = groups.summaries(tx)
    assert (seen.attempts, seen.error, seen.instances) == (3, "it failed", 2)


def test_completing_makes_a_group_due_whatever_still_comes(ledger: Ledger) -> None:
    """Once a person has said "now", an instance that joins before the hand-over defers nothing."""
    with ledger.write() as tx:
        group, _ = join(tx)
        assert groups.complete(tx, group, after(1), "ann") == "TEST"
        join(tx, 2)
        assert due(tx, 1) == [group]
        (told,) = events.of_subject(tx, group)
    assert (told.action, told.actor, told.from_state) == ("complete", "ann", "open")


def test_completing_a_parked_group_opens_it_again(ledger: Ledger) -> None:
    """A parked group gets all its attempts back."""
    with ledger.write() as tx:
        group, _ = join(tx)
        groups.postpone(tx, group, 5, after(60), "it failed")
        groups.close(tx, group, GroupState.PARKED, at=after(5), actor="system", reason="it failed")
        assert due(tx, 1000) == []
        assert groups.complete(tx, group, after(9), "ann") == "TEST"
        assert groups.due(tx, "TEST", after(9)) == [(group, 0)]
        (seen,) = groups.summaries(tx)
    assert (seen.state, seen.error) == ("open", "")


def test_completing_a_parked_group_merges_what_came_since(ledger: Ledger) -> None:
    """The parked group takes the instances of the open one, whose own turn then counts nothing."""
    with ledger.write() as tx:
        parked, first = join(tx)
        groups.close(tx, parked, GroupState.PARKED, at=after(5), actor="system", reason="why")
        since, second = join(tx, 30)
        assert groups.complete(tx, parked, after(31), "ann") == "TEST"
        # The processor may have had the open group in its hands: its close must fail.
        assert not groups.close(tx, since, GroupState.DISPATCHED, at=after(31), actor="system")
        merged = groups.get(tx, parked, make.locate)
        assert due(tx, 31) == [parked]
        assert events.of_subject(tx, since)[-1].reason == f"merged into {parked}"
    assert merged.instances == (first, second)
    assert (merged.opened_at, merged.last_instance_at) == (NOW, after(30))


def test_a_closed_group_can_be_neither_completed_nor_discarded(ledger: Ledger) -> None:
    """What is decided stays decided, and what does not exist is told."""
    with ledger.write() as tx:
        group, _ = join(tx)
        assert groups.discard(tx, group, after(1), "ann")
        assert not groups.discard(tx, group, after(1), "ann")
        assert groups.complete(tx, group, after(1), "ann") is None
        assert groups.complete(tx, "unknown", after(1), "ann") is None
        assert groups.summaries(tx) == []


@pytest.mark.parametrize("parked", [True, False])
def test_discarding_gives_the_instances_to_the_reclaimer(ledger: Ledger, *, parked: bool) -> None:
    """The instances of a discarded group may go; those of the group beside it stay."""
    with ledger.write() as tx:
        group, member = join(tx)
        join(tx, key="other")
        if parked:
            groups.close(tx, group, GroupState.PARKED, at=NOW, actor="system")
        groups.discard(tx, group, after(1), "ann")
    assert make.reclaimable(ledger, after(1)) == [member.id]


def test_a_group_may_hold_more_instances_than_a_statement_can_name(ledger: Ledger) -> None:
    """33,000 instances are grouped, listed, submitted, released and taken like three."""
    with ledger.write() as tx:
        group, _ = join(tx)
        _copy_instance(tx, 33_000)
        found = groups.get(tx, group, make.locate)
        assert len(found.instances) == 33_001
        (seen,) = groups.summaries(tx)
        assert (seen.instances, seen.size) == (33_001, 33_001_000)
        ids = [member.id for member in found.instances]
        sent = make.submit(tx, ids)
        assert [m.id for m in instances.of_submission(tx, sent.id, make.locate)] == ids
        assert groups.discard(tx, group, after(1), "ann")
        assert stock.begin_reclaim(tx, after(1), 1) == []


def _copy_instance(tx: Connection, times: int) -> None:
    """Copy the first row so many times, each under an id of its own."""
    columns = ", ".join(
        column.name for column in schema.instances.columns if column.name not in {"seq", "id"}
    )
    tx.execute(
        text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :times) "  # noqa: S608 - our own names
            f"INSERT INTO instances (id, {columns}) SELECT 'copy-' || i, {columns} "
            "FROM n, instances WHERE seq = 1"
        ),
        {"times": times},
    )


def test_groups_are_shown_oldest_first(ledger: Ledger) -> None:
    """People see open and parked groups in the order in which they were opened."""
    with ledger.write() as tx:
        opened = [join(tx, key=key)[0] for key in "cab"]
        groups.close(tx, opened[1], GroupState.PARKED, at=NOW, actor="system")
        assert [group.id for group in groups.summaries(tx)] == opened
        assert [g.id for g in groups.summaries(tx, [GroupState.PARKED])] == [opened[1]]
