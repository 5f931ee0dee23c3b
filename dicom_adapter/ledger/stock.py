"""Queries about what is in the spool: what is kept and why, what may go, and what has a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, case, func, select, update

from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.schema import groups, instances
from dicom_adapter.model import GroupState, InstanceState, Keeping

_GONE = (InstanceState.RECLAIMING, InstanceState.RECLAIMED)
_KEPT = tuple(state for state in InstanceState if state not in _GONE)
_ON_DISK = tuple(state for state in InstanceState if state != InstanceState.RECLAIMED)


@dataclass(frozen=True)
class Recording:
    """What the ledger says of an instance's file."""

    state: InstanceState
    sha256: str
    size: int

    @property
    def has_file(self) -> bool:
        """True where there is to be one."""
        return self.state not in _GONE


def begin_reclaim(tx: Connection, before: datetime, limit: int) -> list[str]:
    """Mark instances that may be removed since `before`, oldest first, and return their ids.

    Their files are unlinked next; from now on no job can be made of them.
    """
    query = (
        select(instances.c.id)
        .where(instances.c.state == InstanceState.RELEASED, instances.c.reclaimable_at <= before)
        .order_by(instances.c.reclaimable_at, instances.c.seq)
        .limit(limit)
    )
    ids = list(tx.scalars(query))
    tx.execute(
        update(instances).where(instances.c.id.in_(ids)).values(state=InstanceState.RECLAIMING)
    )
    return ids


def next_reclaimable(tx: Connection) -> datetime | None:
    """Return since when the oldest removable instance may be removed."""
    found: datetime | None = tx.scalar(
        select(func.min(instances.c.reclaimable_at)).where(
            instances.c.state == InstanceState.RELEASED
        )
    )
    return found


def end_reclaim(tx: Connection, ids: Sequence[str], at: datetime) -> None:
    """Mark instances whose files are gone; their rows stay as a record."""
    tx.execute(
        update(instances)
        .where(instances.c.id.in_(ids))
        .values(state=InstanceState.RECLAIMED, reclaimed_at=at)
    )


def reclaiming(tx: Connection) -> list[str]:
    """Return what was marked for unlinking and may not be unlinked, after a crash or a fault."""
    query = select(instances.c.id).where(instances.c.state == InstanceState.RECLAIMING)
    return list(tx.scalars(query.order_by(instances.c.seq)))


def present(tx: Connection, ae_title: str, sop_instance_uids: Iterable[str]) -> set[str]:
    """Return which SOP instances an AE title has that nobody has let go."""
    here = [state for state in _KEPT if state != InstanceState.RELEASED]
    return {
        uid
        for portion in portions(sop_instance_uids)
        for uid in tx.scalars(
            select(instances.c.sop_instance_uid).where(
                instances.c.ae_title == ae_title,
                instances.c.sop_instance_uid.in_(portion),
                instances.c.state.in_(here),
            )
        )
    }


def kept(tx: Connection, ids: Iterable[str]) -> set[tuple[str, str]]:
    """Return those of the instances whose files are still in the spool, as (id, sha256)."""
    found: set[tuple[str, str]] = set()
    for portion in portions(ids):
        query = select(instances.c.id, instances.c.sha256).where(
            instances.c.id.in_(portion), instances.c.state.not_in(_GONE)
        )
        found.update((row.id, row.sha256) for row in tx.execute(query))
    return found


def of_series(tx: Connection, ae_title: str, study: str, series: str) -> list[str]:
    """Return what is kept of a series that came in by an AE title, by its ids."""
    query = select(instances.c.id).where(
        instances.c.ae_title == ae_title,
        # Named one by one: the index of work then skips the record of the past. An index of series
        # would be one more for every instance that comes.
        instances.c.state.in_(_KEPT),
        instances.c.study_instance_uid == study,
        instances.c.series_instance_uid == series,
    )
    return list(tx.scalars(query))


def folders(tx: Connection, digits: int) -> list[str]:
    """Return how the ids begin of what is to have a file, by so many of their digits."""
    begins = func.substr(instances.c.id, 1, digits)
    query = select(begins).where(instances.c.state.in_(_ON_DISK)).distinct()
    return list(tx.scalars(query))


def recorded(tx: Connection, begins: str) -> dict[str, Recording]:
    """Return every instance whose id begins so, by its id."""
    query = select(*instances.c["id", "state", "sha256", "size"]).where(
        # What comes behind every hexadecimal digit: so the index of the ids is used.
        instances.c.id.between(begins, f"{begins}g")
    )
    return {
        row.id: Recording(InstanceState(row.state), row.sha256, row.size)
        for row in tx.execute(query)
    }


def gone(tx: Connection, ids: Iterable[str]) -> int:
    """Return how many of the instances are reclaimed, or about to be."""
    return sum(
        tx.scalar(
            select(func.count()).where(instances.c.id.in_(portion), instances.c.state.in_(_GONE))
        )
        or 0
        for portion in portions(ids)
    )


def keeping(tx: Connection) -> list[Keeping]:
    """Return how much is kept for which reason."""
    reason = case(
        (instances.c.state == InstanceState.RECEIVED, "waiting for its job processor"),
        (instances.c.state == InstanceState.QUARANTINED, "in quarantine"),
        (instances.c.state == InstanceState.RECLAIMING, "being removed"),
        (
            and_(instances.c.state == InstanceState.RELEASED, instances.c.reclaimable_at.is_(None)),
            "waiting for their submission to be accepted",
        ),
        (instances.c.state == InstanceState.RELEASED, "delivered, until `retain` has passed"),
        (groups.c.state == GroupState.OPEN, "in an open group"),
        (groups.c.state == GroupState.PARKED, "in a parked group"),
        else_="kept by its job processor",
    )
    query = (
        select(
            reason.label("reason"),
            func.count().label("instances"),
            func.sum(instances.c.size).label("size"),
            func.min(instances.c.received_at).label("oldest"),
        )
        .select_from(instances.outerjoin(groups, groups.c.id == instances.c.group_id))
        # Named one by one, not "all but reclaimed": the index then skips the record of the past.
        .where(instances.c.state.in_(_ON_DISK))
        .group_by(reason)
        .order_by(reason)
    )
    return [Keeping(**row) for row in tx.execute(query).mappings()]
