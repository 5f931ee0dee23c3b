"""Queries about groups: who belongs to which, and when it is due."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, func, insert, select, update

from dicom_adapter.ledger import events, instances
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


def join(
    tx: Connection,
    instance: StoredInstance,
    key: str,
    after: timedelta,
    max_wait: timedelta | None,
) -> str:
    """Put an instance into the open group of its AE title and key, opening one where none is.

    The group is due `after` its last instance, but no later than `max_wait` after its first.
    """
    row = tx.execute(
        select(groups).where(
            groups.c.ae_title == instance.ae_title,
            groups.c.key == key,
            groups.c.state == GroupState.OPEN,
        )
    ).one_or_none()
    due = instance.received_at + after
    if row is None:
        ready_by = instance.received_at + max_wait if max_wait is not None else None
        group_id = _open(tx, instance, key, min(due, ready_by or due), ready_by)
    else:
        group_id = row.id
        tx.execute(
            update(groups)
            .where(groups.c.id == group_id)
            .values(
                last_instance_at=max(row.last_instance_at, instance.received_at),
                # Never sooner than it was: it may be waiting to be tried again.
                ready_at=max(row.ready_at, min(due, row.ready_by or due)),
            )
        )
    tx.execute(
        update(instance_table).where(instance_table.c.id == instance.id).values(group_id=group_id)
    )
    return group_id


def _open(
    tx: Connection,
    instance: StoredInstance,
    key: str,
    ready_at: datetime,
    ready_by: datetime | None,
) -> str:
    group_id = uuid4().hex
    tx.execute(
        insert(groups).values(
            id=group_id,
            ae_title=instance.ae_title,
            key=key,
            state=GroupState.OPEN,
            opened_at=instance.received_at,
            last_instance_at=instance.received_at,
            ready_at=ready_at,
            ready_by=ready_by,
        )
    )
    return group_id


def due(tx: Connection, ae_title: str, now: datetime) -> list[tuple[str, int]]:
    """Return the open groups that are due, with how often the processor failed on them."""
    query = select(groups.c.id, groups.c.attempts).where(
        groups.c.ae_title == ae_title,
        groups.c.state == GroupState.OPEN,
        groups.c.ready_at <= now,
    )
    return [(row.id, row.attempts) for row in tx.execute(query.order_by(groups.c.ready_at))]


def next_ready(tx: Connection, ae_title: str) -> datetime | None:
    """Return when the next open group of an AE title is due."""
    found: datetime | None = tx.scalar(
        select(func.min(groups.c.ready_at)).where(
            groups.c.ae_title == ae_title, groups.c.state == GroupState.OPEN
        )
    )
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
