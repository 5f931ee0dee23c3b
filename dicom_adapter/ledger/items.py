"""Queries about the items of jobs: each is begun, and ends, on its own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, case, insert, select, update

from dicom_adapter.ledger.schema import job_files, job_inputs, job_items
from dicom_adapter.lifecycle import ENDED_ITEM, ITEMS_GO, Action, ItemState
from dicom_adapter.model import JobInput, JobItem, ResourceUse

_NOTHING_YET: Mapping[str, Any] = {
    "reason": "",
    "error": "",
    "exit_code": None,
    "started_at": None,
    "finished_at": None,
    "cpu_seconds": None,
    "max_rss_bytes": None,
    "wall_seconds": None,
}


@dataclass(frozen=True)
class Summary:
    """What has become of a job's items, as its own row says it."""

    states: Sequence[ItemState]
    #: Of the first that failed.
    reason: str
    error: str
    #: Of a job's only item.
    exit_code: int | None
    used: ResourceUse | None


_STATE = select(job_items.c.state).where(job_items.c.id == bindparam("item_id"))
_OF_JOB = (
    select(job_items).where(job_items.c.job_id == bindparam("of")).order_by(job_items.c.position)
)
_WAITING = _OF_JOB.where(job_items.c.state == ItemState.IN_QUEUE).limit(1)


def add(
    tx: Connection, job_id: str, items: Sequence[JobItem], inputs: Sequence[Sequence[JobInput]]
) -> None:
    """Write the items of a new job, with their inputs."""
    tx.execute(
        insert(job_items),
        [
            {"id": item.id, "job_id": job_id, "position": item.number - 1, "state": item.state}
            for item in items
        ],
    )
    for item, series in zip(items, inputs, strict=True):
        _add_inputs(tx, item.id, series)


def _add_inputs(tx: Connection, item_id: str, inputs: Sequence[JobInput]) -> None:
    tx.execute(
        insert(job_inputs),
        [
            {
                "item_id": item_id,
                "position": position,
                "study": series.study,
                "series": series.series,
                "range": series.range,
                "instances": len(series.files),
            }
            for position, series in enumerate(inputs)
        ],
    )
    tx.execute(
        insert(job_files),
        [
            {
                "item_id": item_id,
                "input_position": position,
                "position": index,
                "instance_id": file.instance_id,
                "sop_instance_uid": file.sop_instance_uid,
                "sha256": file.sha256,
            }
            for position, series in enumerate(inputs)
            for index, file in enumerate(series.files)
        ],
    )


def begin_next(tx: Connection, job_id: str, at: datetime) -> JobItem | None:
    """Begin the first item that waits, and return it; None where none does."""
    row = tx.execute(_WAITING, {"of": job_id}).mappings().one_or_none()
    if row is None:
        return None
    begun = {**_NOTHING_YET, "state": ItemState.PROCESSING, "started_at": at}
    tx.execute(update(job_items).where(job_items.c.id == row["id"]).values(begun))
    return item_of({**row, **begun})


def end(
    tx: Connection, item_id: str, state: ItemState, at: datetime, values: Mapping[str, Any]
) -> None:
    """End an item that was begun."""
    tx.execute(
        update(job_items)
        .where(job_items.c.id == item_id)
        .values(state=state, finished_at=at, **values)
    )


def go(tx: Connection, job_id: str, action: Action, at: datetime) -> None:
    """Let the items of a job go where a move of it takes them."""
    ways = ITEMS_GO.get(action, {})
    ends = {source: target for source, target in ways.items() if target in ENDED_ITEM}
    others = {source: target for source, target in ways.items() if target not in ENDED_ITEM}
    _go(tx, job_id, ends, {"finished_at": at})
    _go(tx, job_id, others, {"started_at": None} if action == Action.REQUEUE else {})


def _go(
    tx: Connection,
    job_id: str,
    ways: Mapping[ItemState, ItemState],
    values: Mapping[str, Any],
) -> None:
    if ways:
        tx.execute(
            update(job_items)
            .where(job_items.c.job_id == job_id, job_items.c.state.in_(sorted(ways)))
            .values(state=case(dict(ways), value=job_items.c.state), **values)
        )


def cancel(tx: Connection, item_id: str, at: datetime) -> ItemState:
    """Cancel an item that has not ended; return its state, cancelling where it runs."""
    state = state_of(tx, item_id)
    if state == ItemState.IN_QUEUE:
        end(tx, item_id, ItemState.CANCELLED, at, {})
        return ItemState.CANCELLED
    if state == ItemState.PROCESSING:
        to = {"state": ItemState.CANCELLING}
        tx.execute(update(job_items).where(job_items.c.id == item_id).values(to))
        return ItemState.CANCELLING
    return state


def cancel_waiting(tx: Connection, job_id: str, at: datetime) -> None:
    """Cancel every item of a job that waits."""
    _go(tx, job_id, {ItemState.IN_QUEUE: ItemState.CANCELLED}, {"finished_at": at})


def reset(tx: Connection, ids: Collection[str]) -> None:
    """Have items wait again, as if they had never run."""
    tx.execute(
        update(job_items)
        .where(job_items.c.id.in_(sorted(ids)))
        .values(state=ItemState.IN_QUEUE, **_NOTHING_YET)
    )


def state_of(tx: Connection, item_id: str) -> ItemState:
    """Return the state of an item."""
    return ItemState(tx.execute(_STATE, {"item_id": item_id}).scalar_one())


def summary(tx: Connection, job_id: str) -> Summary:
    """Return what has become of a job's items."""
    found = [item_of(row) for row in tx.execute(_OF_JOB, {"of": job_id}).mappings()]
    failed = [item for item in found if item.state == ItemState.FAILED]
    used = [item.used for item in found if item.used is not None]
    error = failed[0].error if failed else ""
    if failed and len(found) > 1:
        error = f"{len(failed)} of {len(found)} items failed; item {failed[0].number}: {error}"
    return Summary(
        states=[item.state for item in found],
        reason=failed[0].reason if failed else "",
        error=error,
        exit_code=found[0].exit_code if len(found) == 1 else None,
        used=_sum(used) if used else None,
    )


def _sum(used: Sequence[ResourceUse]) -> ResourceUse:
    return ResourceUse(
        cpu_seconds=round(sum(one.cpu_seconds for one in used), 3),
        max_rss_bytes=max(one.max_rss_bytes for one in used),
        wall_seconds=round(sum(one.wall_seconds for one in used), 3),
    )


def item_of(row: RowMapping | Mapping[str, Any]) -> JobItem:
    """Return what an item's own row says."""
    used = None
    if row["wall_seconds"] is not None:
        used = ResourceUse(row["cpu_seconds"], row["max_rss_bytes"], row["wall_seconds"])
    return JobItem(
        id=row["id"],
        number=row["position"] + 1,
        state=ItemState(row["state"]),
        reason=row["reason"],
        error=row["error"],
        exit_code=row["exit_code"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        used=used,
    )
