"""Statements that a database's driver runs as they are: for what every single instance costs."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement


class Prepared:
    """A statement, compiled once for each connection to a database.

    `Connection.execute` takes five times as long as SQLite does for one small row. Here values are
    as the database has them (a time in microseconds, see `schema.microseconds`), and so are rows.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement

    def on(self, tx: Connection) -> "Cursor":
        """Return a cursor of the transaction that runs it."""
        # Kept with the driver's connection, as long as that lives.
        cursor: Cursor | None = tx.info.get(self)
        if cursor is None:
            cursor = tx.info[self] = Cursor(tx, self._statement)
        return cursor


class Cursor:
    """Runs a prepared statement. It is used by whoever holds the connection's transaction.

    What goes wrong is raised as SQLAlchemy raises it.
    """

    def __init__(self, tx: Connection, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=tx.dialect)
        self._text = str(compiled)
        self._cursor = tx.connection.cursor()
        self._error = tx.dialect.loaded_dbapi.Error
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        order = compiled.positiontup
        self._order = itemgetter(*order) if order else None

    def run(self, values: Mapping[str, Any]) -> None:
        """Run it with these values."""
        self._called(self._cursor.execute, self._bound(values))

    def run_each(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each row of values."""
        self._called(self._cursor.executemany, [self._bound(values) for values in rows])

    def rows(self, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Run it with these values, and return what it finds."""
        self.run(values)
        return self._cursor.fetchall()

    def _bound(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a tuple or a mapping
        values = {**self._fixed, **values}
        return values if self._order is None else self._order(values)

    def _called(self, function: Callable[[str, Any], object], values: object) -> None:
        try:
            function(self._text, values)
        except self._error as error:
            # Without the values, which may be a patient's.
            raise DBAPIError.instance(self._text, None, error, self._error) from error
