"""The audit trail: who moved what, when, from where to where, and why."""

from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select

from dicom_adapter.ledger.schema import events
from dicom_adapter.model import Event


def add(
    tx: Connection,
    kind: str,
    subject: str,
    action: str,
    *,
    source: str,
    target: str,
    at: datetime,
    actor: str = "system",
    reason: str = "",
    project: str = "",
) -> None:
    """Write one event in the transaction of the move that it tells of."""
    tx.execute(
        insert(events),
        {
            "at": at,
            "actor": actor,
            "kind": kind,
            "subject": subject,
            "project": project,
            "action": action,
            "from_state": source,
            "to_state": target,
            "reason": reason,
        },
    )


# Asked before each job that starts.
_LAST_OF = (
    select(events)
    .where(events.c.subject == bindparam("subject"))
    .order_by(events.c.seq.desc())
    .limit(1)
)


def last_number(tx: Connection) -> int:
    """Return the number of the newest event, 0 when there is none."""
    return tx.scalar(select(func.coalesce(func.max(events.c.seq), 0))) or 0


def newest_time(tx: Connection) -> datetime | None:
    """Return when the newest event happened."""
    found: datetime | None = tx.scalar(select(events.c.at).order_by(events.c.seq.desc()).limit(1))
    return found


def after(tx: Connection, number: int, kind: str, limit: int = 500) -> list[Event]:
    """Return the events of a kind that came after a number, oldest first."""
    query = select(events).where(events.c.seq > number, events.c.kind == kind)
    return [_event(row) for row in tx.execute(query.order_by(events.c.seq).limit(limit)).mappings()]


def last_of(tx: Connection, subject: str) -> Event | None:
    """Return the newest event of a subject; None when there is none."""
    row = tx.execute(_LAST_OF, {"subject": subject}).mappings().one_or_none()
    return None if row is None else _event(row)


def between(
    tx: Connection,
    after: int,
    last: int,
    *,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> list[Event]:
    """Return events of every kind behind a number and up to another, oldest first.

    Those before `since`, and from `until` on, are left out. By number, not by time: a clock that is
    set back would make events come twice, or never.
    """
    query = select(events).where(events.c.seq > after, events.c.seq <= last)
    if since is not None:
        query = query.where(events.c.at >= since)
    if until is not None:
        query = query.where(events.c.at < until)
    return [_event(row) for row in tx.execute(query.order_by(events.c.seq).limit(limit)).mappings()]


def of_subject(tx: Connection, subject: str) -> list[Event]:
    """Return the whole history of one job, group, submission or instance, oldest first."""
    query = select(events).where(events.c.subject == subject).order_by(events.c.seq)
    return [_event(row) for row in tx.execute(query).mappings()]


def _event(row: RowMapping) -> Event:
    values = dict(row)
    return Event(number=values.pop("seq"), **values)
