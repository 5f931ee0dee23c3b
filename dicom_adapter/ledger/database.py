"""Opens the ledger, brings its schema up to date and hands out transactions."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_adapter.errors import StartError, UnavailableError, UncertainError
from dicom_adapter.files import sync_folder
from dicom_adapter.ledger.prepared import Prepared
from dicom_adapter.model import Durability

T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"
# SQLite binds at most 32766 values in a statement; a study may hold more instances.
IDS_PER_STATEMENT = 10_000
# How long a transaction waits for another one, of this process or of another.
LONGEST_WAIT_SECONDS = 10.0
# In WAL mode, NORMAL leaves it to the operating system when the last commits reach the disk.
SYNCHRONOUS = {Durability.POWER_LOSS: "FULL", Durability.PROCESS_CRASH: "NORMAL"}


class Ledger:
    """The one store of state, on SQLite in WAL mode.

    Writes take turns; readers see a snapshot and never wait for a writer. Every committed write
    wakes those who wait in `wait_for` and `next_commit`, and those who asked by `tell`.
    """

    def __init__(self, url: str, durability: Durability = Durability.POWER_LOSS) -> None:
        self._url = url
        self._writing = threading.Lock()
        self._committed = threading.Condition()
        self._commits = 0
        self._told: list[Callable[[], None]] = []
        self._closed = False
        self._was_cut_off = False
        self._writer = _engine(url, begin="BEGIN IMMEDIATE", synchronous=SYNCHRONOUS[durability])
        self._reader = _engine(url, begin="BEGIN", synchronous=SYNCHRONOUS[durability])
        # Held: to take it from its pool and give it back takes longer than to write a row.
        self._held: Connection | None = None

    def open(self) -> None:
        """Create the schema or bring it up to date.

        Raises:
            StartError: the ledger cannot be opened, is no ledger, or is newer than this program.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        self._was_cut_off = _has_log(self._writer)
        try:
            with self._writing, self._writer.begin() as connection:
                self._refuse_foreign(connection, ScriptDirectory.from_config(config))
                self._refuse_broken(connection)
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except DatabaseError as error:
            raise StartError(
                f"ledger {self._url}: {error.orig}: check that its folder is writable and that the "
                "file is a ledger; restore it, or make it anew with `dicom-adapter fsck --rebuild`"
            ) from error

    def _refuse_foreign(self, connection: Connection, script: ScriptDirectory) -> None:
        known = {revision.revision for revision in script.walk_revisions()}
        current = MigrationContext.configure(connection).get_current_revision()
        if current is None and inspect(connection).get_table_names():
            raise StartError(
                f"ledger {self._url}: it is the database of another program: name another file"
            )
        if current is not None and current not in known:
            raise StartError(
                f"ledger {self._url}: its schema {current} is newer than this program: "
                "install the version that wrote it, or a newer one"
            )

    def _refuse_broken(self, connection: Connection) -> None:
        # After a clean end there is nothing in the log that is written ahead, so nothing to doubt.
        if not self._was_cut_off:
            return
        problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if problem != "ok":
            raise StartError(
                f"ledger {self._url}: it is corrupt: restore it, or make it anew of the files in "
                "the spool with `dicom-adapter fsck --rebuild`"
            )

    def close(self) -> None:
        """Close every connection; those who wait for a commit are let go."""
        with self._committed:
            self._closed = True
            self._committed.notify_all()
        self._reader.dispose()
        with self._writing:
            if self._held is not None:
                self._held.close()
                self._held = None
        self._writer.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run a transaction that changes the ledger; it is durable when the block has ended.

        Raises:
            UnavailableError: the ledger cannot be written now (locked, disk full, read-only).
            UncertainError: the same, but after a crash it may have been written all the same.
        """
        with self._turn(), _translated():
            if self._held is None:
                self._held = self._writer.connect()
            is_whole = False
            try:
                with self._held.begin():
                    yield self._held
                    is_whole = True
            except DatabaseError as error:
                if is_whole:
                    _overwrite(self._held, error)
                raise
        with self._committed:
            self._commits += 1
            self._committed.notify_all()
        for wake in self._told:
            wake()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # As long as one write may wait for the file, not as long for each write before this one: a
        # hundred senders would wait a hundred times, and give up before they are answered.
        if not self._writing.acquire(timeout=LONGEST_WAIT_SECONDS):
            raise UnavailableError("ledger: other writes before this one have not ended in time")
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run a transaction that reads one snapshot of the ledger.

        Raises:
            UnavailableError: the ledger cannot be read now.
        """
        with _translated(), self._reader.begin() as connection:
            yield connection

    @property
    def commits(self) -> int:
        """How many writes were committed since the ledger was opened."""
        return self._commits

    def next_commit(self, after: int, timeout: float) -> int:
        """Wait until more than `after` writes were committed, at most `timeout` seconds."""
        with self._committed:
            self._committed.wait_for(lambda: self._commits > after or self._closed, timeout)
            return self._commits

    def tell(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each write from now on; it must be quick, and fail never."""
        self._told.append(wake)

    def wait_for(self, look: Callable[[], T], timeout: float) -> T:
        """Return what `look` returns as soon as it is true; it looks again after each commit.

        Raises:
            TimeoutError: it was not true within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._commits
            found = look()
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0 or self._closed:
                raise TimeoutError(f"not so within {timeout} s: {found!r}")
            self.next_commit(seen, left)


def portions(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield ids in portions that one statement can name."""
    rest = iter(ids)
    while portion := list(islice(rest, IDS_PER_STATEMENT)):
        yield portion


def set_aside(url: str, suffix: str) -> list[Path]:
    """Rename the files of a ledger, so that another can be made; return them by their new names."""
    file = _file_of(create_engine(url))
    moved = []
    # The database last: what is left of a broken move is still a whole ledger.
    for part in ("-wal", "-shm", ""):
        path = Path(f"{file}{part}")
        if path.exists():
            moved.append(path.rename(f"{file}.{suffix}{part}"))
    sync_folder(file.parent)
    return moved


def _file_of(engine: Engine) -> Path:
    return Path(engine.url.database or "")


def _has_log(engine: Engine) -> bool:
    log = Path(f"{_file_of(engine)}-wal")
    return log.exists() and log.stat().st_size > 0


def _overwrite(connection: Connection, error: DatabaseError) -> None:
    """Write something else over a commit that failed.

    What failed may have been its flush alone: then all of it lies in the log that is written ahead,
    and counts as committed as soon as the log is read anew.
    """
    try:
        with connection.begin():
            # Nobody reads it, but it is written.
            connection.exec_driver_sql("PRAGMA user_version=0")
    except DatabaseError:
        raise UncertainError(f"ledger: {error.orig}") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DatabaseError as error:
        raise UnavailableError(f"ledger: {error.orig}") from error
    except PoolTimeoutError as error:
        raise UnavailableError("ledger: too many transactions at a time") from error


def _engine(url: str, begin: str, synchronous: str) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's own type
        del record
        # The driver's own transaction handling is off: it would not take the write lock at once.
        connection.isolation_level = None
        cursor = connection.cursor()
        # First: two processes that make the file together wait for each other's change to WAL.
        cursor.execute(f"PRAGMA busy_timeout={LONGEST_WAIT_SECONDS * 1000:.0f}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        # SQLite's own LIKE and lower() know the letters of ASCII alone.
        connection.create_function("casefold", 1, str.casefold, deterministic=True)

    starting = Prepared(text(begin))

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        starting.on(connection).run({})

    return engine
