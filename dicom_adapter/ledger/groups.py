"""Queries about groups: who belongs to which, and when it is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from dicom_adapter.ledger import events, instances
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.ledger.schema import groups
from dicom_adapter.ledger.schema import instances as instance_table
from dicom_adapter.model import GroupState, GroupSummary, InstanceGroup, StoredInstance

KIND = "group"
_ACTIONS = {
    GroupState.DISPATCHED: "dispatch",
    GroupState.PARKED: "park",
    GroupState.DISCARDED: "discard",
}
UNDECIDED = (GroupState.OPEN, GroupState.PARKED)


# Statements of every instance are made once: to put one together takes longer than to run it.
_OPEN = select(
    *groups.c["id", "ae_title", "key", "opened_at", "last_instance_at", "ready_at", "ready_by"]
).where(
    groups.c.ae_title.in_(bindparam("ae_titles", expanding=True)),
    groups.c.key.in_(bindparam("keys", expanding=True)),
    groups.c.state == GroupState.OPEN,
)
_DUE = (
    select(groups.c.id, groups.c.attempts)
    .where(
        groups.c.ae_title == bindparam("ae_title"),
        groups.c.state == GroupState.OPEN,
        groups.c.ready_at <= bindparam("now"),
    )
    .order_by(groups.c.ready_at)
)
_NEXT_READY = select(func.min(groups.c.ready_at)).where(
    groups.c.ae_title == bindparam("ae_title"), groups.c.state == GroupState.OPEN
)
# The newest of each key comes last.
_HANDED_OVER = (
    select(*groups.c["ae_title", "key", "id"])
    .where(
        groups.c.ae_title.in_(bindparam("ae_titles", expanding=True)),
        groups.c.key.in_(bindparam("keys", expanding=True)),
        groups.c.state == GroupState.DISPATCHED,
    )
    .order_by(groups.c.seq)
)
_INSERT = insert(groups).values(state=GroupState.OPEN)
_MOVE = update(groups).where(groups.c.id == bindparam("group"))
_PUT = update(instance_table).where(instance_table.c.id == bindparam("instance"))


@dataclass(frozen=True)
class Joining:
    """An instance that is to be in the open group of its AE title and this key.

    The group is due `after` its last instance, but no later than `max_wait` after its first.
    """

    instance: StoredInstance
    key: str
    after: timedelta
    max_wait: timedelta | None


@dataclass
class _Open:
    """An open group, as far as those who join it move it."""

    id: str
    ae_title: str
    key: str
    opened_at: datetime
    last_instance_at: datetime
    ready_at: datetime
    ready_by: datetime | None
    previous_id: str | None = None

    @classmethod
    def by(cls, first: Joining) -> "_Open":
        """Return the group that an instance opens."""
        at = first.instance.received_at
        ready_by = None if first.max_wait is None else at + first.max_wait
        return cls(uuid4().hex, first.instance.ae_title, first.key, at, at, at, ready_by)

    def take(self, joining: Joining) -> None:
        """Move the deadline as an instance that joins does."""
        at = joining.instance.received_at
        due = at + joining.after
        self.last_instance_at = max(self.last_instance_at, at)
        # Never sooner than it was: it may be waiting to be tried again.
        self.ready_at = max(self.ready_at, min(due, self.ready_by or due))


def join(tx: Connection, joinings: Sequence[Joining]) -> list[str]:
    """Put instances into the open groups of their keys, opening those that there are none of.

    Returns the group of each instance.
    """
    titles = {joining.instance.ae_title for joining in joinings}
    found = [
        _Open(*row)
        for keys in portions({joining.key for joining in joinings})
        for row in tx.execute(_OPEN, {"ae_titles": titles, "keys": keys})
    ]
    known = {(group.ae_title, group.key): group for group in found}
    opened, joined = [], []
    for joining in joinings:
        place = joining.instance.ae_title, joining.key
        if place not in known:
            known[place] = _Open.by(joining)
            opened.append(known[place])
        known[place].take(joining)
        joined.append(known[place].id)
    if opened:
        _follow(tx, opened)
        tx.execute(_INSERT, [vars(group) for group in opened])
    if found:
        tx.execute(_MOVE, [_moved(group) for group in found])
    if joined:
        members = zip(joinings, joined, strict=True)
        tx.execute(_PUT, [{"instance": j.instance.id, "group_id": group} for j, group in members])
    return joined


def _follow(tx: Connection, opened: Sequence[_Open]) -> None:
    """Have new groups know the one of the same key that was handed over before."""
    titles = {group.ae_title for group in opened}
    before = {
        (row.ae_title, row.key): row.id
        for keys in portions({group.key for group in opened})
        for row in tx.execute(_HANDED_OVER, {"ae_titles": titles, "keys": keys})
    }
    for group in opened:
        group.previous_id = before.get((group.ae_title, group.key))


def _moved(group: _Open) -> dict[str, object]:
    return {
        "group": group.id,
        "last_instance_at": group.last_instance_at,
        "ready_at": group.ready_at,
    }


def due(tx: Connection, ae_title: str, now: datetime) -> list[tuple[str, int]]:
    """Return the open groups that are due, with how often the processor failed on them."""
    found = tx.execute(_DUE, {"ae_title": ae_title, "now": now})
    return [(row.id, row.attempts) for row in found]


def next_ready(tx: Connection, ae_title: str) -> datetime | None:
    """Return when the next open group of an AE title is due."""
    found: datetime | None = tx.scalar(_NEXT_READY, {"ae_title": ae_title})
    return found


def get(tx: Connection, group_id: str, locate: Locate) -> InstanceGroup:
    """Return a group with its instances."""
    row = tx.execute(select(groups).where(groups.c.id == group_id)).one()
    return InstanceGroup(
        id=row.id,
        ae_title=row.ae_title,
        key=row.key,
        opened_at=row.opened_at,
        last_instance_at=row.last_instance_at,
        instances=instances.of_group(tx, group_id, locate),
        previous=row.previous_id,
        earlier=instances.of_groups_before(tx, row.ae_title, row.key, group_id, locate)
        if row.previous_id
        else (),
    )


def size(tx: Connection, group_id: str) -> int:
    """Return how many instances are in a group."""
    members = select(func.count()).where(instance_table.c.group_id == group_id)
    return tx.scalar(members) or 0


def postpone(tx: Connection, group_id: str, attempts: int, ready_at: datetime, error: str) -> None:
    """Note that the processor failed on a group and when it gets it again."""
    tx.execute(
        update(groups)
        .where(groups.c.id == group_id)
        .values(attempts=attempts, ready_at=ready_at, error=error)
    )


def close(
    tx: Connection,
    group_id: str,
    target: GroupState,
    *,
    at: datetime,
    actor: str,
    reason: str = "",
) -> bool:
    """Move a group out of open or parked; False when it was in neither."""
    row = tx.execute(
        select(groups.c.state).where(groups.c.id == group_id, groups.c.state.in_(UNDECIDED))
    ).one_or_none()
    if row is None:
        return False
    tx.execute(
        update(groups)
        .where(groups.c.id == group_id, groups.c.state == row.state)
        .values(state=target, closed_at=at, error=reason)
    )
    events.add(
        tx,
        KIND,
        group_id,
        _ACTIONS[target],
        source=row.state,
        target=target,
        at=at,
        actor=actor,
        reason=reason,
    )
    return True


def complete(tx: Connection, group_id: str, at: datetime, actor: str) -> str | None:
    """Make a group due now, also a parked one; return its AE title, None when it is closed."""
    row = tx.execute(
        select(groups).where(groups.c.id == group_id, groups.c.state.in_(UNDECIDED))
    ).one_or_none()
    if row is None:
        return None
    _absorb_open(tx, row, at, actor)
    tx.execute(
        update(groups)
        .where(groups.c.id == group_id)
        # Due by now, too: an instance that comes before the processor's turn must not defer it.
        .values(state=GroupState.OPEN, ready_at=at, ready_by=at, attempts=0, error="")
    )
    events.add(
        tx,
        KIND,
        group_id,
        "complete",
        source=row.state,
        target=GroupState.OPEN,
        at=at,
        actor=actor,
    )
    return str(row.ae_title)


def _absorb_open(tx: Connection, parked: Row[Any], at: datetime, actor: str) -> None:
    """Merge what came for the same key while a group was parked: one key has one open group.

    The open group is the one that ends. Its processor may be at work on it this moment; that work
    then counts for nothing, and all of the instances come again in the group that remains.
    """
    other = tx.execute(
        select(groups.c.id, groups.c.last_instance_at).where(
            groups.c.ae_title == parked.ae_title,
            groups.c.key == parked.key,
            groups.c.state == GroupState.OPEN,
            groups.c.id != parked.id,
        )
    ).one_or_none()
    if other is None:
        return
    tx.execute(
        update(instance_table)
        .where(instance_table.c.group_id == other.id)
        .values(group_id=parked.id)
    )
    tx.execute(
        update(groups)
        .where(groups.c.id == parked.id)
        .values(last_instance_at=max(parked.last_instance_at, other.last_instance_at))
    )
    reason = f"merged into {parked.id}"
    close(tx, other.id, GroupState.DISCARDED, at=at, actor=actor, reason=reason)


def discard(tx: Connection, group_id: str, at: datetime, actor: str) -> bool:
    """Drop an undecided group and let the reclaimer have its instances."""
    if not close(tx, group_id, GroupState.DISCARDED, at=at, actor=actor):
        return False
    members = select(instance_table.c.id).where(instance_table.c.group_id == group_id)
    instances.release(tx, list(tx.scalars(members)), at)
    return True


def summaries(tx: Connection, states: Sequence[GroupState] = UNDECIDED) -> list[GroupSummary]:
    """Return groups as people see them, oldest first."""
    # One by one over the index: the rows of what was reclaimed long ago are never looked at.
    members = select(func.count()).where(instance_table.c.group_id == groups.c.id)
    sizes = select(func.coalesce(func.sum(instance_table.c.size), 0)).where(
        instance_table.c.group_id == groups.c.id
    )
    query = (
        select(
            groups,
            members.scalar_subquery().label("instances"),
            sizes.scalar_subquery().label("size"),
        )
        .where(groups.c.state.in_(states))
        .order_by(groups.c.seq)
    )
    return [
        GroupSummary(
            id=row["id"],
            ae_title=row["ae_title"],
            key=row["key"],
            state=GroupState(row["state"]),
            instances=row["instances"],
            size=row["size"],
            opened_at=row["opened_at"],
            last_instance_at=row["last_instance_at"],
            ready_at=row["ready_at"],
            attempts=row["attempts"],
            error=row["error"],
        )
        for row in tx.execute(query).mappings()
    ]
