"""Queries about the index: what is kept, as people look for it.

In it is what a job processor keeps, once its file was read, and until it is let go. Whoever decides
that an instance is kept names it by `enqueue`; whoever lets it go, by `forget`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from dicom_adapter.attributes import folded
from dicom_adapter.ledger.columns import EPOCH
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.index_schema import (
    indexed_instances,
    indexed_series,
    indexed_studies,
    unindexed,
)
from dicom_adapter.ledger.schema import instances
from dicom_adapter.model import (
    NAMES,
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    Description,
    InstanceState,
    StoredInstance,
    patient_of,
)

# The columns behind `uid` and its like are those of the attributes, in their order.
STUDY_COLUMNS = dict(zip(STUDY_ATTRIBUTES, list(indexed_studies.c)[2 : -len(NAMES)], strict=True))
SERIES_COLUMNS = dict(zip(SERIES_ATTRIBUTES, list(indexed_series.c)[4:-5], strict=True))
#: What names are compared in.
FOLDED = dict(zip(NAMES, list(indexed_studies.c)[-len(NAMES) :], strict=True))
_NOTHING = dict.fromkeys(("instances", "frames", "size"), 0) | dict.fromkeys(
    ("first_received_at", "last_received_at"), EPOCH
)

# AE title, series and study.
_Series = tuple[str, str, str]


def enqueue(tx: Connection, ids: Iterable[str]) -> None:
    """Have instances that are kept from now on come into the index."""
    for portion in portions(ids):
        waiting = set(
            tx.scalars(select(unindexed.c.instance_id).where(unindexed.c.instance_id.in_(portion)))
        )
        rows = [{"instance_id": one} for one in dict.fromkeys(portion) if one not in waiting]
        if rows:
            tx.execute(insert(unindexed), rows)


def add(
    tx: Connection, found: Sequence[tuple[StoredInstance, Description]], unread: Iterable[str] = ()
) -> None:
    """Put instances into the index, and take them and what cannot be read off the queue.

    What was let go meanwhile does not come in.
    """
    ids = [stored.id for stored, _ in found]
    # Also what is there from before, where it came again: what it says now is what counts.
    forget(tx, [*ids, *unread])
    kept = {
        one
        for portion in portions(ids)
        for one in tx.scalars(
            select(instances.c.id).where(
                instances.c.id.in_(portion), instances.c.state == InstanceState.KEPT
            )
        )
    }
    of_series: dict[_Series, list[tuple[StoredInstance, Description]]] = defaultdict(list)
    for stored, description in found:
        if stored.id in kept:
            key = stored.ae_title, stored.series_instance_uid, stored.study_instance_uid
            of_series[key].append((stored, description))
    for series, members in of_series.items():
        _describe(tx, series, members[-1][1])
        _count_in(tx, series, members)
    rows = [_row(stored, said) for members in of_series.values() for stored, said in members]
    if rows:
        tx.execute(insert(indexed_instances), rows)


def _row(stored: StoredInstance, said: Description) -> dict[str, Any]:
    place = said.placement
    nowhere = place.position is None and place.orientation is None
    return {
        "instance_id": stored.id,
        "series_uid": stored.series_instance_uid,
        "study_uid": stored.study_instance_uid,
        "frames": said.frames,
        "placement": None if nowhere else astuple(place),
        "patient": patient_of(said.study),
    }


def _describe(tx: Connection, series: _Series, said: Description) -> None:
    """Have a study and a series say what their newest instance says."""
    ae_title, uid, study = series
    of_study = {STUDY_COLUMNS[key].name: said.study.get(key, "") for key in STUDY_ATTRIBUTES}
    for name, column in FOLDED.items():
        of_study[column.name] = folded(said.study.get(name, ""))
    changed = update(indexed_studies).where(indexed_studies.c.uid == study).values(of_study)
    if not tx.execute(changed).rowcount:
        tx.execute(insert(indexed_studies), {"uid": study, **of_study})
    of_series = {SERIES_COLUMNS[key].name: said.series.get(key, "") for key in SERIES_ATTRIBUTES}
    if not tx.execute(update(indexed_series).where(_is(series)).values(of_series)).rowcount:
        new = {"ae_title": ae_title, "uid": uid, "study_uid": study, **_NOTHING, **of_series}
        tx.execute(insert(indexed_series), new)


def _count_in(
    tx: Connection, series: _Series, members: Sequence[tuple[StoredInstance, Description]]
) -> None:
    table = indexed_series.c
    before = tx.execute(
        select(table.instances, table.first_received_at, table.last_received_at).where(_is(series))
    ).one()
    came = [stored.received_at for stored, _ in members]
    if before.instances:
        came += (before.first_received_at, before.last_received_at)
    tx.execute(
        update(indexed_series)
        .where(_is(series))
        .values(
            instances=table.instances + len(members),
            frames=table.frames + sum(said.frames for _, said in members),
            size=table.size + sum(stored.size for stored, _ in members),
            first_received_at=min(came),
            last_received_at=max(came),
        )
    )


def forget(tx: Connection, ids: Iterable[str]) -> None:
    """Take instances out of the index, and series and studies that have none any more."""
    for portion in portions(ids):
        tx.execute(delete(unindexed).where(unindexed.c.instance_id.in_(portion)))
        mine = indexed_instances.c.instance_id.in_(portion)
        of = (instances.c.ae_title, *indexed_instances.c["series_uid", "study_uid"])
        lost = tx.execute(
            select(
                *of,
                func.count().label("instances"),
                func.sum(indexed_instances.c.frames).label("frames"),
                func.sum(instances.c.size).label("size"),
            )
            .join(instances, instances.c.id == indexed_instances.c.instance_id)
            .where(mine)
            .group_by(*of)
        ).all()
        if lost:
            tx.execute(delete(indexed_instances).where(mine))
        for row in lost:
            _count_out(tx, (row.ae_title, row.series_uid, row.study_uid), row)
        _drop_empty(tx, {row.study_uid for row in lost})


def _count_out(tx: Connection, series: _Series, row: Any) -> None:  # noqa: ANN401 - a row of counts
    table = indexed_series.c
    tx.execute(
        update(indexed_series)
        .where(_is(series))
        .values(
            instances=table.instances - row.instances,
            frames=table.frames - row.frames,
            size=table.size - row.size,
        )
    )


def _drop_empty(tx: Connection, studies: Iterable[str]) -> None:
    for study in studies:
        tx.execute(
            delete(indexed_series).where(
                indexed_series.c.study_uid == study, indexed_series.c.instances == 0
            )
        )
        tx.execute(
            delete(indexed_studies).where(
                indexed_studies.c.uid == study,
                ~exists().where(indexed_series.c.study_uid == study),
            )
        )


def _is(series: _Series) -> ColumnElement[bool]:
    ae_title, uid, study = series
    table = indexed_series.c
    return and_(table.uid == uid, table.study_uid == study, table.ae_title == ae_title)
