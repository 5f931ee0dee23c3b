"""Queries about what may run at other platforms: a row from before it is asked for to its end."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from dicom_adapter.ledger.schema import jobs, remote_jobs
from dicom_adapter.lifecycle import TERMINAL


@dataclass(frozen=True)
class Handed:
    """One item that was, or may have been, handed to another platform."""

    request_id: str
    #: Which item it is: the place of its folder.
    place: str
    job_id: str
    executor: str
    #: Its job there; empty where the answer never came.
    remote_id: str = ""


def add(tx: Connection, handed: Handed) -> None:
    """Note what is about to be handed over."""
    tx.execute(
        insert(remote_jobs).values(
            request_id=handed.request_id,
            place=handed.place,
            job_id=handed.job_id,
            executor=handed.executor,
        )
    )


def going_on(tx: Connection, place: str) -> Handed | None:
    """Return what an earlier attempt has handed over for an item, and nobody wants to end."""
    query = select(remote_jobs).where(remote_jobs.c.place == place, remote_jobs.c.unwanted == 0)
    row = tx.execute(query).first()
    return None if row is None else _handed(row)


def accepted(tx: Connection, request_id: str, remote_id: str) -> None:
    """Note which job another platform has made."""
    tx.execute(_one(request_id).values(remote_id=remote_id))


def unwant(tx: Connection, request_id: str) -> None:
    """Note that nobody wants it any more."""
    tx.execute(_one(request_id).values(unwanted=1))


def remove(tx: Connection, request_id: str) -> None:
    """Forget what has ended."""
    tx.execute(delete(remote_jobs).where(remote_jobs.c.request_id == request_id))


def left(tx: Connection, but: Collection[str]) -> list[Handed]:
    """Return what nobody waits for and is to end; `but` are those whose attempts run here."""
    query = (
        select(remote_jobs)
        .outerjoin(jobs, jobs.c.id == remote_jobs.c.job_id)
        .where(
            remote_jobs.c.request_id.not_in(sorted(but)),
            or_(
                remote_jobs.c.unwanted == 1,
                jobs.c.id.is_(None),
                jobs.c.state.in_(sorted(TERMINAL)),
            ),
        )
        .order_by(remote_jobs.c.request_id)
    )
    return [_handed(row) for row in tx.execute(query)]


def _one(request_id: str) -> Any:  # noqa: ANN401 - an UPDATE
    return update(remote_jobs).where(remote_jobs.c.request_id == request_id)


def _handed(row: Any) -> Handed:  # noqa: ANN401 - a row
    return Handed(row.request_id, row.place, row.job_id, row.executor, row.remote_id)
