"""Whether the platform stands still: the last event of it says so."""

from datetime import datetime

from sqlalchemy import Connection

from dicom_adapter.ledger import events
from dicom_adapter.model import Event

KIND = SUBJECT = "platform"
RUNNING, PAUSED = "running", "paused"


def current(tx: Connection) -> Event | None:
    """Return the event of the pause that lasts; None while jobs are started."""
    last = events.last_of(tx, SUBJECT)
    return None if last is None or last.to_state != PAUSED else last


def pause(tx: Connection, *, at: datetime, actor: str, why: str) -> None:
    """Have no more jobs started; nothing changes where none are."""
    if current(tx) is None:
        _add(tx, "pause", RUNNING, PAUSED, at=at, actor=actor, why=why)


def resume(tx: Connection, *, at: datetime, actor: str, why: str) -> None:
    """Have jobs started again; nothing changes where they are."""
    if current(tx) is not None:
        _add(tx, "resume", PAUSED, RUNNING, at=at, actor=actor, why=why)


def _add(
    tx: Connection, action: str, source: str, target: str, *, at: datetime, actor: str, why: str
) -> None:
    events.add(
        tx, KIND, SUBJECT, action, source=source, target=target, at=at, actor=actor, reason=why
    )
