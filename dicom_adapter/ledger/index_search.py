"""Queries that look into the index: studies and series that match, and what a series has."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    exists,
    false,
    func,
    or_,
    select,
    true,
)

from dicom_adapter.attributes import folded
from dicom_adapter.ledger import instances
from dicom_adapter.ledger.database import portions
from dicom_adapter.ledger.groups import UNDECIDED
from dicom_adapter.ledger.index import FOLDED, SERIES_COLUMNS, STUDY_COLUMNS
from dicom_adapter.ledger.index_schema import (
    indexed_instances,
    indexed_series,
    indexed_studies,
    unindexed,
)
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.ledger.schema import groups
from dicom_adapter.ledger.schema import instances as instance_table
from dicom_adapter.model import (
    Criterion,
    IndexedInstance,
    KeptStudy,
    Matching,
    Placement,
    SeriesSummary,
    Span,
    StoredInstance,
    StudySummary,
)

_OF_STUDY: Mapping[str, Column[Any]] = {
    **STUDY_COLUMNS,
    "StudyInstanceUID": indexed_studies.c.uid,
}
_OF_SERIES: Mapping[str, Column[Any]] = {
    **SERIES_COLUMNS,
    "SeriesInstanceUID": indexed_series.c.uid,
    "ModalitiesInStudy": indexed_series.c.modality,
}
_ESCAPE = "!"
# Behind every digit and point: what a shorter upper bound of a range includes.
_BEHIND = ":"


def studies(
    tx: Connection, wanted: Sequence[Criterion], limit: int, before: int | None = None
) -> tuple[list[StudySummary], int | None]:
    """Return a page of the studies with a series that matches, the newest in the index first.

    Also returns where the next page begins (None: there is none).
    """
    query = select(indexed_studies).where(_matches(wanted, _OF_STUDY))
    if any(one.keyword in _OF_SERIES for one in wanted):
        mine = indexed_series.c.study_uid == indexed_studies.c.uid
        query = query.where(exists().where(mine, _matches(wanted, _OF_SERIES)))
    rows, next_ = _page(tx, query, indexed_studies.c.seq, limit, before)
    members = _series_of(tx, [row["uid"] for row in rows])
    return [_study(row, members[row["uid"]]) for row in rows], next_


def series(
    tx: Connection, wanted: Sequence[Criterion], limit: int, before: int | None = None
) -> tuple[list[SeriesSummary], int | None]:
    """Return a page of the series that match, as `studies` does."""
    query = _series().where(_matches(wanted, _OF_STUDY), _matches(wanted, _OF_SERIES))
    rows, next_ = _page(tx, query, indexed_series.c.seq, limit, before)
    return [_series_summary(row) for row in rows], next_


def series_of_uid(tx: Connection, uid: str) -> list[SeriesSummary]:
    """Return the series of this UID: one, unless a device has used it in several studies."""
    query = _series().where(indexed_series.c.uid == uid).order_by(indexed_series.c.seq)
    return [_series_summary(row) for row in tx.execute(query).mappings()]


def series_of_study(tx: Connection, uid: str) -> list[SeriesSummary]:
    """Return the series of a study, by their numbers."""
    query = _series().where(indexed_series.c.study_uid == uid).order_by(indexed_series.c.seq)
    found = [_series_summary(row) for row in tx.execute(query).mappings()]
    return sorted(found, key=_number)


def waiting(tx: Connection, limit: int, locate: Locate, after: str = "") -> list[StoredInstance]:
    """Return some of what is kept and not in the index yet, behind an id, in the order it came."""
    query = select(unindexed.c.instance_id).where(unindexed.c.instance_id > after)
    ids = tx.scalars(query.order_by(unindexed.c.instance_id).limit(limit))
    return instances.known(tx, ids, locate)


def kept_studies(tx: Connection, ae_title: str) -> list[KeptStudy]:
    """Return the studies that an AE title keeps, those first that nothing came of for longest."""
    last = func.max(indexed_series.c.last_received_at).label("last_received_at")
    query = (
        select(
            indexed_series.c.study_uid.label("study_instance_uid"),
            func.sum(indexed_series.c.instances).label("instances"),
            func.sum(indexed_series.c.size).label("size"),
            last,
        )
        .where(indexed_series.c.ae_title == ae_title)
        .group_by(indexed_series.c.study_uid)
        .order_by(last)
    )
    return [KeptStudy(**row) for row in tx.execute(query).mappings()]


def to_release(
    tx: Connection, study: str, series: str | None = None, ae_title: str | None = None
) -> tuple[list[str], list[str]]:
    """Return what may be let go of a study or series, and what of it groups still need."""
    query = select(indexed_instances.c.instance_id).where(indexed_instances.c.study_uid == study)
    if series is not None:
        query = query.where(indexed_instances.c.series_uid == series)
    if ae_title is not None:
        query = query.join(
            instance_table, instance_table.c.id == indexed_instances.c.instance_id
        ).where(instance_table.c.ae_title == ae_title)
    ids = list(tx.scalars(query))
    free = set(not_needed(tx, ids))
    return [one for one in ids if one in free], [one for one in ids if one not in free]


def not_needed(tx: Connection, ids: Iterable[str]) -> list[str]:
    """Return those of these instances that no open or parked group has."""
    found: list[str] = []
    for portion in portions(ids):
        query = (
            select(instance_table.c.id)
            .outerjoin(groups, groups.c.id == instance_table.c.group_id)
            .where(
                instance_table.c.id.in_(portion),
                groups.c.state.is_(None) | groups.c.state.not_in(UNDECIDED),
            )
        )
        found += tx.scalars(query)
    return found


def members(tx: Connection, study: str, series: str, locate: Locate) -> list[IndexedInstance]:
    """Return the instances of a series that are in the index, in the order in which they came."""
    query = select(indexed_instances).where(
        indexed_instances.c.series_uid == series, indexed_instances.c.study_uid == study
    )
    rows = {row["instance_id"]: row for row in tx.execute(query).mappings()}
    return [
        IndexedInstance(one, _placement(row["placement"]), row["frames"], row["patient"])
        for one in instances.known(tx, rows, locate)
        for row in (rows[one.id],)
    ]


def one_member(tx: Connection, instance_id: str, locate: Locate) -> StoredInstance | None:
    """Return an instance that is in the index; None where it is not."""
    query = select(indexed_instances.c.instance_id)
    ids = tx.scalars(query.where(indexed_instances.c.instance_id == instance_id))
    return next(iter(instances.known(tx, ids, locate)), None)


def _page(
    tx: Connection, query: Select[Any], seq: Column[int], limit: int, before: int | None
) -> tuple[Sequence[RowMapping], int | None]:
    query = query.order_by(seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(seq < before)
    rows = tx.execute(query).mappings().all()
    return rows[:limit], rows[limit - 1]["seq"] if len(rows) > limit else None


def _series() -> Select[Any]:
    return select(indexed_series, *STUDY_COLUMNS.values()).join(
        indexed_studies, indexed_studies.c.uid == indexed_series.c.study_uid
    )


def _series_of(tx: Connection, studies: Sequence[str]) -> Mapping[str, Sequence[RowMapping]]:
    found: dict[str, list[RowMapping]] = defaultdict(list)
    query = select(indexed_series).where(indexed_series.c.study_uid.in_(studies))
    for row in tx.execute(query).mappings():
        found[row["study_uid"]].append(row)
    return found


def _study(row: RowMapping, members: Sequence[RowMapping]) -> StudySummary:
    return StudySummary(
        uid=row["uid"],
        attributes=_attributes(row, STUDY_COLUMNS),
        modalities=tuple(sorted({one["modality"] for one in members if one["modality"]})),
        series=len(members),
        instances=sum(one["instances"] for one in members),
        size=sum(one["size"] for one in members),
        first_received_at=min(one["first_received_at"] for one in members),
        last_received_at=max(one["last_received_at"] for one in members),
    )


def _series_summary(row: RowMapping) -> SeriesSummary:
    return SeriesSummary(
        ae_title=row["ae_title"],
        uid=row["uid"],
        study_uid=row["study_uid"],
        attributes=_attributes(row, STUDY_COLUMNS) | _attributes(row, SERIES_COLUMNS),
        instances=row["instances"],
        frames=row["frames"],
        size=row["size"],
        first_received_at=row["first_received_at"],
        last_received_at=row["last_received_at"],
    )


def _attributes(row: RowMapping, columns: Mapping[str, Column[Any]]) -> dict[str, str]:
    return {key: row[column.name] for key, column in columns.items() if row[column.name]}


def _number(of: SeriesSummary) -> tuple[bool, int]:
    number = of.attributes.get("SeriesNumber", "")
    return not number.lstrip("-").isdecimal(), int(number) if number.lstrip("-").isdecimal() else 0


def _placement(value: Sequence[Any] | None) -> Placement:
    if value is None:
        return Placement()
    position, orientation = value
    return Placement(
        None if position is None else tuple(position),
        None if orientation is None else tuple(orientation),
    )


# What is asked for.


def _matches(
    wanted: Sequence[Criterion], columns: Mapping[str, Column[Any]]
) -> ColumnElement[bool]:
    """Return the condition of those criteria that these columns have."""
    condition: ColumnElement[bool] = true()
    for one in wanted:
        if one.keyword in columns:
            condition &= _is(one, FOLDED.get(one.keyword, columns[one.keyword]))
    return condition


def _is(wanted: Criterion, column: Column[Any]) -> ColumnElement[bool]:
    return or_(false(), *(_is_value(wanted.matching, column, value) for value in wanted.values))


def _is_value(matching: Matching, column: Column[Any], value: str | Span) -> ColumnElement[bool]:
    if isinstance(value, Span):
        within: ColumnElement[bool] = column != ""
        if value.first is not None:
            within &= column >= value.first
        if value.last is not None:
            within &= column <= f"{value.last}{_BEHIND}"
        return within
    if matching is Matching.UID:
        return column == value
    if matching is Matching.NAME:
        # In any of its component groups.
        return column.like(f"%{_pattern(folded(value))}%", escape=_ESCAPE)
    if not value.isascii():
        return func.casefold(column).like(_pattern(value.casefold()), escape=_ESCAPE)
    return column.like(_pattern(value), escape=_ESCAPE)


def _pattern(text: str) -> str:
    """Return wildcards of PS3.4 section C.2.2.2.4 as SQL has them."""
    for letter in (_ESCAPE, "%", "_"):
        text = text.replace(letter, f"{_ESCAPE}{letter}")
    return text.replace("*", "%").replace("?", "_")
