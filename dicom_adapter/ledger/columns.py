"""The kinds of columns that the tables are made of."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Return an aware time as the tables have it."""
    return (moment - EPOCH) // MICROSECOND


class Moment(TypeDecorator[datetime]):
    """A time as whole microseconds since 1970, UTC: exact, ordered, and alike on every backend."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn an aware time into microseconds."""
        del dialect
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - the driver's
        """Turn microseconds into an aware time."""
        del dialect
        return None if value is None else EPOCH + value * MICROSECOND


def sequence() -> Column[int]:
    """Return the column of the row's number."""
    # AUTOINCREMENT on SQLite: a number is never given twice, also after deletions.
    return Column("seq", Integer, primary_key=True, autoincrement=True)


def text_column(name: str, **options: Any) -> Column[str]:  # noqa: ANN401 - passed on to Column
    """Return a column of texts."""
    return Column(name, Text, nullable=False, **options)


def moment(name: str, *, nullable: bool = False, **options: Any) -> Column[datetime]:  # noqa: ANN401 - passed on to Column
    """Return a column of times."""
    return Column(name, Moment, nullable=nullable, **options)


def integer(name: str, **options: Any) -> Column[int]:  # noqa: ANN401 - passed on to Column
    """Return a column of whole numbers."""
    return Column(name, BigInteger, nullable=False, **options)
