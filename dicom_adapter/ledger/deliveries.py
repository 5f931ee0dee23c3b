"""Queries about webhooks: how far each was told of jobs, and what is still to be sent."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Update,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from dicom_adapter.ledger import events
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.schema import deleted_jobs, deliveries, jobs, webhooks
from dicom_adapter.model import Delivery, DeliveryState, JobFacts, Priority

KIND = "delivery"
UNSETTLED = (DeliveryState.PENDING, DeliveryState.PARKED)
SETTLED = (DeliveryState.SENT, DeliveryState.DISCARDED)

_FACTS = (
    *("id", "name", "project", "pipeline", "pipeline_version", "ae_title", "state", "reason"),
    *("priority", "instances", "attempts", "created_at", "started_at", "finished_at"),
)
_TIMES = ("created_at", "started_at", "finished_at")


def registered(tx: Connection) -> dict[str, int]:
    """Return the webhooks, each with the last event that was looked at for it."""
    return {row.name: row.event for row in tx.execute(select(webhooks))}


def register(tx: Connection, webhook: str, event: int) -> None:
    """Have a webhook told of what comes after an event."""
    tx.execute(insert(webhooks).values(name=webhook, event=event))


def unregister(tx: Connection, webhook: str, at: datetime) -> int:
    """Forget a webhook, and give up what was not sent to it; return how many that were."""
    tx.execute(delete(webhooks).where(webhooks.c.name == webhook))
    query = select(deliveries.c.id).where(
        deliveries.c.webhook == webhook, deliveries.c.state.in_(UNSETTLED)
    )
    ids = list(tx.scalars(query))
    for delivery_id in ids:
        discard(tx, delivery_id, at, "system", "the webhook is not configured any more")
    return len(ids)


def advance(tx: Connection, event: int) -> None:
    """Note that every webhook was told of all events up to one."""
    tx.execute(update(webhooks).where(webhooks.c.event < event).values(event=event))
    told = select(func.min(webhooks.c.event)).scalar_subquery()
    tx.execute(delete(deleted_jobs).where(deleted_jobs.c.event <= told))


def facts(tx: Connection, ids: Iterable[str]) -> dict[str, JobFacts]:
    """Return what is told of jobs, by their ids; also of those that were deleted meanwhile."""
    found: dict[str, JobFacts] = {}
    for portion in portions(ids):
        query = select(deleted_jobs).where(deleted_jobs.c.id.in_(portion))
        found.update((row.id, _buried(row.facts)) for row in tx.execute(query))
        present = select(*jobs.c[_FACTS]).where(jobs.c.id.in_(portion))
        found.update((row["id"], _facts(row)) for row in tx.execute(present).mappings())
    return found


def remember(tx: Connection, job_id: str) -> None:
    """Keep what is told of a job whose record is about to be deleted, if anybody is told."""
    if tx.scalar(select(webhooks.c.name).limit(1)) is None:
        return
    row = tx.execute(select(*jobs.c[_FACTS]).where(jobs.c.id == job_id)).mappings().one()
    kept = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    # The number that its deletion is going to have: nothing comes between in this transaction.
    number = events.last_number(tx) + 1
    tx.execute(insert(deleted_jobs).values(id=job_id, event=number, facts=kept))


def _buried(kept: dict[str, Any]) -> JobFacts:
    times = {name: kept[name] and datetime.fromisoformat(kept[name]) for name in _TIMES}
    return _facts({**kept, **times})


def _facts(row: RowMapping | dict[str, Any]) -> JobFacts:
    return JobFacts(**{**row, "priority": Priority(row["priority"]).label})


def add(tx: Connection, delivery: Delivery) -> None:
    """Write a delivery before its message is first sent."""
    values = {name: getattr(delivery, name) for name in Delivery.__dataclass_fields__}
    tx.execute(insert(deliveries).values(values))


def due(tx: Connection, webhook: str, now: datetime) -> Delivery | None:
    """Return the oldest delivery that is due to a webhook; None where none is."""
    query = (
        select(deliveries)
        .join(webhooks, webhooks.c.name == deliveries.c.webhook)
        .where(
            deliveries.c.webhook == webhook,
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.ready_at <= now,
            webhooks.c.held_until.is_(None) | (webhooks.c.held_until <= now),
        )
        .order_by(deliveries.c.seq)
        .limit(1)
    )
    row = tx.execute(query).mappings().one_or_none()
    return None if row is None else _delivery(row)


def next_ready(tx: Connection, webhook: str) -> datetime | None:
    """Return when the next delivery to a webhook is due."""
    ready_at: datetime | None = tx.scalar(
        select(func.min(deliveries.c.ready_at)).where(
            deliveries.c.webhook == webhook, deliveries.c.state == DeliveryState.PENDING
        )
    )
    held_until: datetime | None = tx.scalar(
        select(webhooks.c.held_until).where(webhooks.c.name == webhook)
    )
    if ready_at is None or held_until is None:
        return ready_at
    return max(ready_at, held_until)


def hold(tx: Connection, webhook: str, until: datetime) -> None:
    """Send nothing to a webhook until then."""
    tx.execute(update(webhooks).where(webhooks.c.name == webhook).values(held_until=until))


def hurry(tx: Connection, webhook: str, now: datetime) -> None:
    """Have all that waits for a webhook tried now."""
    tx.execute(update(webhooks).where(webhooks.c.name == webhook).values(held_until=None))
    tx.execute(
        update(deliveries)
        .where(deliveries.c.webhook == webhook, deliveries.c.state == DeliveryState.PENDING)
        .values(ready_at=now)
    )


def note_sent(tx: Connection, delivery_id: str, status: int, at: datetime) -> None:
    """Note that the receiver has taken a message; also where a person has given it up meanwhile."""
    tx.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(
            state=DeliveryState.SENT,
            status=status,
            error="",
            settled_at=at,
            attempts=deliveries.c.attempts + 1,
        )
    )


def postpone(
    tx: Connection, delivery_id: str, ready_at: datetime, status: int | None, error: str
) -> None:
    """Note that a message was not taken, and when to try again."""
    tx.execute(
        _pending(delivery_id).values(
            ready_at=ready_at, status=status, error=error, attempts=deliveries.c.attempts + 1
        )
    )


def park(tx: Connection, delivery_id: str, at: datetime, status: int | None, error: str) -> None:
    """Note that a message is not sent again until a person decides."""
    parked = tx.execute(
        _pending(delivery_id).values(
            state=DeliveryState.PARKED,
            status=status,
            error=error,
            attempts=deliveries.c.attempts + 1,
        )
    )
    # None where a person has given it up during the call.
    if parked.rowcount:
        source, target = DeliveryState.PENDING, DeliveryState.PARKED
        events.add(tx, KIND, delivery_id, "park", source=source, target=target, at=at, reason=error)


def retry(tx: Connection, delivery_id: str, at: datetime, actor: str) -> bool:
    """Make a parked or waiting delivery due now; False when it is settled."""
    found = _unsettled(tx, delivery_id)
    if found is None:
        return False
    target = DeliveryState.PENDING
    tx.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(state=target, ready_at=at, queued_at=at, attempts=0)
    )
    tx.execute(update(webhooks).where(webhooks.c.name == found.webhook).values(held_until=None))
    events.add(
        tx, KIND, delivery_id, "retry", source=found.state, target=target, at=at, actor=actor
    )
    return True


def discard(tx: Connection, delivery_id: str, at: datetime, actor: str, why: str = "") -> bool:
    """Give a delivery up; False when it is settled."""
    found = _unsettled(tx, delivery_id)
    if found is None:
        return False
    target = DeliveryState.DISCARDED
    tx.execute(
        update(deliveries).where(deliveries.c.id == delivery_id).values(state=target, settled_at=at)
    )
    events.add(
        tx,
        KIND,
        delivery_id,
        "discard",
        source=found.state,
        target=target,
        at=at,
        actor=actor,
        reason=why,
    )
    return True


def listed(
    tx: Connection,
    states: Sequence[DeliveryState],
    webhook: str,
    limit: int,
    before: int | None = None,
) -> tuple[list[Delivery], int | None]:
    """Return a page of deliveries, newest first, and where the next begins (None: there is none).

    Without states those of every state, without a webhook those to all of them.
    """
    held = webhooks.c.held_until
    query = (
        select(deliveries, held)
        .outerjoin(webhooks, webhooks.c.name == deliveries.c.webhook)
        .where(deliveries.c.state.in_(states or DeliveryState))
    )
    if webhook:
        query = query.where(deliveries.c.webhook == webhook)
    if before is not None:
        query = query.where(deliveries.c.seq < before)
    query = query.order_by(deliveries.c.seq.desc()).limit(limit + 1)
    rows = tx.execute(query).mappings().all()
    after = rows[limit - 1]["seq"] if len(rows) > limit else None
    return list(map(_as_held, rows[:limit])), after


def forget_settled(tx: Connection, before: datetime, limit: int) -> int:
    """Remove deliveries that were settled before a time; return how many."""
    query = select(deliveries.c.seq).where(_settled_before(before)).limit(limit)
    found = list(tx.scalars(query.order_by(deliveries.c.settled_at)))
    tx.execute(delete(deliveries).where(deliveries.c.seq.in_(found)))
    return len(found)


def next_settled(tx: Connection) -> datetime | None:
    """Return when the delivery was settled that is settled for the longest."""
    found: datetime | None = tx.scalar(
        select(func.min(deliveries.c.settled_at)).where(deliveries.c.state.in_(SETTLED))
    )
    return found


def _settled_before(before: datetime) -> ColumnElement[bool]:
    return and_(deliveries.c.state.in_(SETTLED), deliveries.c.settled_at <= before)


def _pending(delivery_id: str) -> Update:
    return update(deliveries).where(
        deliveries.c.id == delivery_id, deliveries.c.state == DeliveryState.PENDING
    )


def _unsettled(tx: Connection, delivery_id: str) -> Delivery | None:
    query = select(deliveries).where(
        deliveries.c.id == delivery_id, deliveries.c.state.in_(UNSETTLED)
    )
    row = tx.execute(query).mappings().one_or_none()
    return None if row is None else _delivery(row)


def _as_held(row: RowMapping) -> Delivery:
    """Return a delivery that is ready no earlier than its webhook."""
    found, held_until = _delivery(row), row["held_until"]
    if found.state != DeliveryState.PENDING or held_until is None:
        return found
    return replace(found, ready_at=max(found.ready_at, held_until))


def _delivery(row: RowMapping) -> Delivery:
    values = {name: row[name] for name in Delivery.__dataclass_fields__}
    return Delivery(**{**values, "state": DeliveryState(values["state"])})
