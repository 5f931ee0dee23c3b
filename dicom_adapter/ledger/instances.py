"""Queries about received instances."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    exists,
    func,
    insert,
    select,
    update,
)

from dicom_adapter.ledger import events, index
from dicom_adapter.ledger.columns import EPOCH, MICROSECOND, microseconds
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.prepared import Prepared
from dicom_adapter.ledger.schema import groups, instances, submission_instances, submissions
from dicom_adapter.model import (
    GroupState,
    InstanceState,
    QuarantinedInstance,
    Received,
    Recorded,
    Resend,
    StoredInstance,
    SubmissionState,
)

KIND = "instance"


#: Where the file of an instance lies, by the instance's id.
Locate = Callable[[str], Path]

_FIELDS = tuple(field.name for field in fields(StoredInstance) if field.name != "path")
_COLUMNS = instances.c[_FIELDS]
_fields_of = attrgetter(*_FIELDS)
# What makes two instances the same.
_identity_of = itemgetter("ae_title", "sop_instance_uid", "sha256")


# Statements of every instance are made once: to put one together takes longer than to run it.
_ROW = (
    *_FIELDS,
    "state",
    "ready_at",
    "move_originator_ae_title",
    "move_originator_message_id",
)
_INSERT = Prepared(insert(instances).values({name: bindparam(name) for name in _ROW}))
# All that is kept with the same SOP Instance UID, whatever its bytes.
_SAME = Prepared(
    select(instances.c.id, instances.c.sha256, instances.c.state, groups.c.state)
    .outerjoin_from(instances, groups, groups.c.id == instances.c.group_id)
    .where(
        instances.c.ae_title == bindparam("ae_title"),
        instances.c.sop_instance_uid == bindparam("sop_instance_uid"),
        instances.c.state != InstanceState.RECLAIMING,
        instances.c.state != InstanceState.RECLAIMED,
    )
    .order_by(instances.c.seq)
)
_CLOSED = (GroupState.DISPATCHED, GroupState.DISCARDED)
_RECEIVED = (
    select(*_COLUMNS, instances.c.attempts)
    .where(
        instances.c.ae_title == bindparam("ae_title"),
        instances.c.state == InstanceState.RECEIVED,
        instances.c.ready_at <= bindparam("now"),
    )
    # The order of their index: of a long queue, no more than the first few are looked at.
    .order_by(instances.c.ready_at, instances.c.seq)
    .limit(bindparam("limit"))
)
_NEXT_READY = select(func.min(instances.c.ready_at)).where(
    instances.c.ae_title == bindparam("ae_title"), instances.c.state == InstanceState.RECEIVED
)
_HANDLED = (
    update(instances)
    .where(
        instances.c.id.in_(bindparam("ids", expanding=True)),
        instances.c.state == InstanceState.RECEIVED,
    )
    .values(state=InstanceState.KEPT, attempts=0)
)


def record(tx: Connection, arrivals: Sequence[Received]) -> list[Recorded]:
    """Record received instances, due for their processors at once; tell what was made of each.

    One that has come before with the same bytes is no new one. Nothing changes where the first is
    still to be handled; where that was handled and let go, or its group is closed, it is due again.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    told = []
    for arrival in arrivals:
        row = _row(arrival)
        identity = _identity_of(row)
        earlier = rows[identity]["id"] if identity in rows else _known(tx, arrival, row)
        if earlier is None:
            rows[identity] = row
        told.append(Recorded(earlier or row["id"], earlier is None))
    _INSERT.on(tx).run_each(list(rows.values()))
    return told


def _known(tx: Connection, arrival: Received, row: Mapping[str, Any]) -> str | None:
    """Return the id of an instance with these bytes that is kept, due again if it has to be."""
    same = _SAME.on(tx).rows(row)
    for instance_id, sha256, state, group_state in same:
        if sha256 == row["sha256"]:
            is_over = state == InstanceState.RELEASED or (
                state == InstanceState.KEPT and group_state in _CLOSED
            )
            if is_over and arrival.resend == Resend.PROCESS:
                _come_again(tx, instance_id, state, row)
            return str(instance_id)
    if same:
        at = arrival.instance.received_at
        reason = f"other bytes than {same[0][0]}, which has the same SOP Instance UID"
        events.add(
            tx, KIND, row["id"], "variant", source="", target=row["state"], at=at, reason=reason
        )
    return None


def _come_again(tx: Connection, instance_id: str, state: str, row: Mapping[str, Any]) -> None:
    """Have an instance handled once more, as if it had just come for the first time."""
    at = EPOCH + row["received_at"] * MICROSECOND
    values = {name: row[name] for name in ("association", "calling_ae_title", "source_address")}
    tx.execute(
        update(instances)
        .where(instances.c.id == instance_id)
        .values(
            **values,
            state=InstanceState.RECEIVED,
            received_at=at,
            ready_at=at,
            attempts=0,
            reason="",
            reclaimable_at=None,
        )
    )
    events.add(tx, KIND, instance_id, "resend", source=state, target=InstanceState.RECEIVED, at=at)


def _row(arrival: Received) -> dict[str, Any]:
    title, message_id = arrival.move_originator or (None, None)
    row = dict(zip(_FIELDS, _fields_of(arrival.instance), strict=True))
    row["received_at"] = row["ready_at"] = microseconds(arrival.instance.received_at)
    row["state"] = InstanceState.RECEIVED
    row["move_originator_ae_title"] = title
    row["move_originator_message_id"] = message_id
    return row


def last_association(tx: Connection) -> int:
    """Return the highest association number that stored anything, 0 when there is none."""
    return tx.scalar(select(func.coalesce(func.max(instances.c.association), 0))) or 0


def received(
    tx: Connection, ae_title: str, now: datetime, limit: int, locate: Locate
) -> list[tuple[StoredInstance, int]]:
    """Return the instances that are due for their processor, with how often it failed before."""
    found = tx.execute(_RECEIVED, {"ae_title": ae_title, "now": now, "limit": limit})
    return [(_instance(row, locate), row.attempts) for row in found]


def next_ready(tx: Connection, ae_title: str) -> datetime | None:
    """Return when the next instance of an AE title is due for its processor."""
    found: datetime | None = tx.scalar(_NEXT_READY, {"ae_title": ae_title})
    return found


def handled(tx: Connection, ids: Iterable[str]) -> None:
    """Note that the processor has taken instances, which it keeps until it lets them go."""
    tx.execute(_HANDLED, {"ids": ids})


def postpone(
    tx: Connection, instance_id: str, attempts: int, ready_at: datetime, reason: str
) -> None:
    """Note that the processor failed on an instance and when it gets it again."""
    tx.execute(
        update(instances)
        .where(instances.c.id == instance_id)
        .values(attempts=attempts, ready_at=ready_at, reason=reason)
    )


def quarantine(tx: Connection, instance_id: str, reason: str, attempts: int, at: datetime) -> None:
    """Set an instance aside for a person to see."""
    tx.execute(
        update(instances)
        .where(instances.c.id == instance_id)
        .values(state=InstanceState.QUARANTINED, reason=reason, attempts=attempts)
    )
    events.add(
        tx,
        KIND,
        instance_id,
        "quarantine",
        source=InstanceState.RECEIVED,
        target=InstanceState.QUARANTINED,
        at=at,
    )


def quarantined(tx: Connection, locate: Locate) -> list[QuarantinedInstance]:
    """Return what is set aside, oldest first."""
    query = select(*_COLUMNS, instances.c.reason, instances.c.attempts).where(
        instances.c.state == InstanceState.QUARANTINED
    )
    return [
        QuarantinedInstance(_instance(row, locate), row.reason, row.attempts)
        for row in tx.execute(query.order_by(instances.c.seq))
    ]


def retry_quarantined(tx: Connection, instance_id: str, at: datetime, actor: str) -> bool:
    """Hand an instance to its processor again; False when it is not in quarantine."""
    values = {"state": InstanceState.RECEIVED, "ready_at": at, "attempts": 0, "reason": ""}
    return _leave_quarantine(tx, instance_id, values, at=at, actor=actor)


def discard_quarantined(tx: Connection, instance_id: str, at: datetime, actor: str) -> bool:
    """Let the reclaimer have an instance; False when it is not in quarantine."""
    values = {"state": InstanceState.RELEASED}
    if not _leave_quarantine(tx, instance_id, values, at=at, actor=actor):
        return False
    tx.execute(_make_reclaimable(instances.c.id == instance_id, at))
    index.forget(tx, [instance_id])
    return True


def _leave_quarantine(
    tx: Connection, instance_id: str, values: dict[str, Any], *, at: datetime, actor: str
) -> bool:
    moved = tx.execute(
        update(instances)
        .where(instances.c.id == instance_id, instances.c.state == InstanceState.QUARANTINED)
        .values(**values)
    )
    if moved.rowcount:
        events.add(
            tx,
            KIND,
            instance_id,
            "retry" if values["state"] == InstanceState.RECEIVED else "discard",
            source=InstanceState.QUARANTINED,
            target=values["state"],
            at=at,
            actor=actor,
        )
    return bool(moved.rowcount)


def release(tx: Connection, instance_ids: Iterable[str], at: datetime) -> None:
    """Note that processors need these instances no more.

    The reclaimer gets those that no unsettled submission holds; the others follow when it settles.
    """
    for ids in portions(instance_ids):
        tx.execute(
            update(instances)
            .where(
                instances.c.id.in_(ids),
                instances.c.state.in_([InstanceState.RECEIVED, InstanceState.KEPT]),
            )
            .values(state=InstanceState.RELEASED)
        )
        tx.execute(_make_reclaimable(instances.c.id.in_(ids), at))
        index.forget(tx, ids)


def release_by(tx: Connection, ids: Sequence[str], at: datetime, actor: str) -> None:
    """Let instances go by a person's decision, as `release` does."""
    release(tx, ids, at)
    for instance_id in ids:
        events.add(
            tx,
            KIND,
            instance_id,
            "release",
            source=InstanceState.KEPT,
            target=InstanceState.RELEASED,
            at=at,
            actor=actor,
        )


def release_settled(tx: Connection, submission_id: str, at: datetime) -> None:
    """Give the reclaimer what only this submission, now settled, still held."""
    held = select(submission_instances.c.instance_id).where(
        submission_instances.c.submission_id == submission_id
    )
    tx.execute(_make_reclaimable(instances.c.id.in_(held), at))


def hold(tx: Connection, submission_id: str) -> None:
    """Take back from the reclaimer what a new submission needs, and was released before it."""
    held = select(submission_instances.c.instance_id).where(
        submission_instances.c.submission_id == submission_id
    )
    tx.execute(
        update(instances)
        .where(instances.c.id.in_(held), instances.c.state == InstanceState.RELEASED)
        .values(reclaimable_at=None)
    )


def _make_reclaimable(which: ColumnElement[bool], at: datetime) -> Any:  # noqa: ANN401 - a statement
    unsettled = exists().where(
        submission_instances.c.instance_id == instances.c.id,
        submission_instances.c.submission_id == submissions.c.id,
        submissions.c.state.in_([SubmissionState.PENDING, SubmissionState.PARKED]),
    )
    return (
        update(instances)
        .where(
            which,
            instances.c.state == InstanceState.RELEASED,
            instances.c.reclaimable_at.is_(None),
            ~unsettled,
        )
        .values(reclaimable_at=at)
    )


def of_group(tx: Connection, group_id: str, locate: Locate) -> tuple[StoredInstance, ...]:
    """Return the instances of a group, in the order in which they came."""
    query = select(*_COLUMNS).where(instances.c.group_id == group_id).order_by(instances.c.seq)
    return tuple(_instance(row, locate) for row in tx.execute(query))


def of_groups_before(
    tx: Connection, ae_title: str, key: str, group_id: str, locate: Locate
) -> tuple[StoredInstance, ...]:
    """Return what is still kept of the other groups of a key that were handed over."""
    query = (
        select(*_COLUMNS)
        .join(groups, groups.c.id == instances.c.group_id)
        .where(
            groups.c.ae_title == ae_title,
            groups.c.key == key,
            groups.c.state == GroupState.DISPATCHED,
            groups.c.id != group_id,
            instances.c.state.in_([InstanceState.KEPT, InstanceState.RELEASED]),
        )
        .order_by(instances.c.seq)
    )
    return tuple(_instance(row, locate) for row in tx.execute(query))


def of_submission(tx: Connection, submission_id: str, locate: Locate) -> tuple[StoredInstance, ...]:
    """Return the instances of a submission, in the order in which they were submitted."""
    query = (
        select(*_COLUMNS)
        .join(submission_instances, submission_instances.c.instance_id == instances.c.id)
        .where(submission_instances.c.submission_id == submission_id)
        .order_by(submission_instances.c.position)
    )
    return tuple(_instance(row, locate) for row in tx.execute(query))


def known(tx: Connection, ids: Iterable[str], locate: Locate) -> list[StoredInstance]:
    """Return those of the instances that came in here, in the order in which they came."""
    columns = (*_COLUMNS, instances.c.seq)
    found = {
        row.seq: _instance(row, locate)
        for portion in portions(ids)
        for row in tx.execute(select(*columns).where(instances.c.id.in_(portion)))
    }
    return [instance for _, instance in sorted(found.items())]


def _instance(row: Any, locate: Locate) -> StoredInstance:  # noqa: ANN401 - a Row that begins so
    return StoredInstance(**dict(zip(_FIELDS, row, strict=False)), path=locate(row.id))
