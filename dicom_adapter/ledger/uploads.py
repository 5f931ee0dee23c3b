"""Queries about instances that a client without a shared disk has uploaded."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.schema import uploads


def add(tx: Connection, instance_id: str, sha256: str, size: int, at: datetime) -> None:
    """Record an upload; once more changes only when it was last used."""
    if not touch(tx, instance_id, sha256, at):
        tx.execute(
            insert(uploads).values(instance_id=instance_id, sha256=sha256, size=size, used_at=at)
        )


def touch(tx: Connection, instance_id: str, sha256: str, at: datetime) -> bool:
    """Note that an upload is needed now; False when there is none."""
    found = tx.execute(
        update(uploads)
        .where(uploads.c.instance_id == instance_id, uploads.c.sha256 == sha256)
        .values(used_at=at)
    )
    return bool(found.rowcount)


def present(tx: Connection, instance_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Return the uploads of these instances, as (instance id, sha256)."""
    found: set[tuple[str, str]] = set()
    for portion in portions(instance_ids):
        query = select(uploads.c.instance_id, uploads.c.sha256).where(
            uploads.c.instance_id.in_(portion)
        )
        found.update((row.instance_id, row.sha256) for row in tx.execute(query))
    return found


def unused_since(tx: Connection, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Return uploads (instance id, sha256) that no job has asked for since a time."""
    query = (
        select(uploads.c.instance_id, uploads.c.sha256)
        .where(uploads.c.used_at <= before)
        .order_by(uploads.c.used_at)
        .limit(limit)
    )
    return [(row.instance_id, row.sha256) for row in tx.execute(query)]


def every(tx: Connection) -> set[tuple[str, str]]:
    """Return all uploads, as (instance id, sha256)."""
    query = select(uploads.c.instance_id, uploads.c.sha256)
    return {(row.instance_id, row.sha256) for row in tx.execute(query)}


def next_unused(tx: Connection) -> datetime | None:
    """Return when the upload that is unused for the longest was last used."""
    found: datetime | None = tx.scalar(select(func.min(uploads.c.used_at)))
    return found


def remove(tx: Connection, found: Sequence[tuple[str, str]]) -> None:
    """Forget uploads whose files are gone."""
    for instance_id, sha256 in found:
        tx.execute(
            delete(uploads).where(uploads.c.instance_id == instance_id, uploads.c.sha256 == sha256)
        )
