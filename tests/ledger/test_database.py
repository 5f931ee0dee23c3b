import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import UniqueConstraint, inspect, text
from sqlalchemy.exc import IntegrityError

from dicom_adapter.errors import StartError, UnavailableError
from dicom_adapter.ledger import Ledger, database, events, instances, schema
from dicom_adapter.model import Durability
from tests.ledger import make
from tests.support import PATIENCE


def test_a_commit_survives_a_power_cut(ledger: Ledger) -> None:
    """Every connection runs in WAL mode and flushes each commit to the disk."""
    for transaction in (ledger.write, ledger.read):
        with transaction() as tx:
            assert tx.scalar(text("PRAGMA journal_mode")) == "wal"
            assert tx.scalar(text("PRAGMA synchronous")) == 2
            assert tx.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_commit_survives_the_end_of_the_process(url: str) -> None:
    """With `process-crash`, the write-ahead log keeps each commit, but none waits for the disk."""
    ledger = Ledger(url, Durability.PROCESS_CRASH)
    ledger.open()
    for transaction in (ledger.write, ledger.read):
        with transaction() as tx:
            assert tx.scalar(text("PRAGMA journal_mode")) == "wal"
            assert tx.scalar(text("PRAGMA synchronous")) == 1
    ledger.close()


def test_migrations_make_the_tables_of_the_schema(ledger: Ledger) -> None:
    """The migrations and schema.py agree: tables, columns, keys, indexes and their conditions."""
    with ledger.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        made = inspect(tx)
        for table in schema.metadata.sorted_tables:
            wanted = {
                str(index.name): (
                    [column.name for column in index.columns],
                    bool(index.unique),
                    str(index.dialect_options["sqlite"]["where"] is not None),
                )
                for index in table.indexes
            }
            found = {
                str(index["name"]): (
                    index["column_names"],
                    bool(index["unique"]),
                    str("sqlite_where" in index.get("dialect_options", {})),
                )
                for index in made.get_indexes(table.name)
            }
            assert found == wanted, table.name
            unique = {
                tuple(found["column_names"]) for found in made.get_unique_constraints(table.name)
            }
            assert unique == {
                tuple(column.name for column in constraint.columns)
                for constraint in table.constraints
                if isinstance(constraint, UniqueConstraint)
            }, table.name


def test_opening_again_changes_nothing(url: str) -> None:
    """What was written is found again, and opening an up-to-date ledger is harmless."""
    first = Ledger(url)
    first.open()
    with first.write() as tx:
        stored = make.add_instance(tx)
    first.close()
    second = Ledger(url)
    second.open()
    with second.read() as tx:
        found = instances.received(tx, "TEST", make.NOW, 10, make.locate)
    second.close()
    assert [instance for instance, _ in found] == [stored]


def test_a_newer_schema_is_refused(url: str) -> None:
    """A ledger that a newer version wrote is left alone, and the message says what to install."""
    newer = Ledger(url)
    newer.open()
    with newer.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.close()
    with pytest.raises(StartError, match="9999 is newer than this program: install the version"):
        Ledger(url).open()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A database with tables of another program is not made a ledger."""
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE jobs (id)")
    other.close()
    with pytest.raises(StartError, match="the database of another program: name another file"):
        Ledger(f"sqlite:///{tmp_path / 'other.db'}").open()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is no database stays as it is, and the message says the cure."""
    file = tmp_path / "ledger.db"
    file.write_bytes(b"these are the holiday pictures" * 100)
    with pytest.raises(StartError, match=r"not a database: check that .* the file is a ledger"):
        Ledger(f"sqlite:///{file}").open()
    assert file.read_bytes() == b"these are the holiday pictures" * 100


@pytest.mark.parametrize("place", ["missing/ledger.db", "file/ledger.db", "folder"])
def test_where_no_file_can_be_written_is_refused(tmp_path: Path, place: str) -> None:
    """A folder that is missing or cannot be written is told with its cure."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StartError, match="check that its folder is writable"):
        Ledger(f"sqlite:///{tmp_path / place}").open()


def test_a_write_that_cannot_be_made_is_unavailable(ledger: Ledger) -> None:
    """The driver's errors become UnavailableError, which says to try again."""

    def write() -> None:
        with ledger.write() as tx:
            tx.execute(text("PRAGMA query_only=ON"))
            make.add_instance(tx)

    with pytest.raises(UnavailableError, match=r"ledger: .*readonly"):
        write()


def test_a_full_disk_is_unavailable_and_leaves_nothing_behind(ledger: Ledger) -> None:
    """A commit for which there is no room is refused whole, and the next one can succeed."""

    def fill() -> None:
        with ledger.write() as tx:
            pages = tx.scalar(text("PRAGMA page_count"))
            tx.execute(text(f"PRAGMA max_page_count={pages}"))
            for _ in range(1000):
                make.add_instance(tx)

    with pytest.raises(UnavailableError, match="full"):
        fill()
    with ledger.write() as tx:
        tx.execute(text("PRAGMA max_page_count=100000"))
        make.add_instance(tx)
    assert make.reasons(ledger) == {"waiting for its job processor": 1}


def test_a_locked_ledger_is_unavailable(ledger: Ledger, tmp_path: Path) -> None:
    """Another process that holds the ledger for too long makes a write fail, not hang."""
    with ledger.write() as tx:
        tx.execute(text("PRAGMA busy_timeout=1"))
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"), ledger.write():
        pass
    other.execute("ROLLBACK")
    other.close()


def test_a_violated_constraint_is_the_callers_to_handle(ledger: Ledger) -> None:
    """A duplicate is not "try again later": it stays an IntegrityError, and nothing is written."""

    def add_twice() -> None:
        with ledger.write() as tx:
            made = make.add_instance(tx)
            make.add_instance(tx, id=made.id)

    with pytest.raises(IntegrityError):
        add_twice()
    assert make.reasons(ledger) == {}


def test_those_who_wait_to_write_wait_together(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that takes too long lets those behind it go at once, not one after the other."""
    monkeypatch.setattr(database, "LONGEST_WAIT_SECONDS", 0.01)
    refused = threading.Barrier(4)

    def write() -> None:
        with pytest.raises(UnavailableError, match="have not ended"), ledger.write():
            pass
        refused.wait(PATIENCE)

    with ledger.write():
        for _ in range(3):
            threading.Thread(target=write, daemon=True).start()
        refused.wait(PATIENCE)
    with ledger.write() as tx:
        make.add_instance(tx)


def test_a_block_that_raises_writes_nothing(ledger: Ledger) -> None:
    """A transaction is whole or not at all."""

    def fail() -> None:
        with ledger.write() as tx:
            make.add_instance(tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert make.reasons(ledger) == {}


def test_a_reader_sees_one_snapshot(ledger: Ledger) -> None:
    """A write beside an open read neither waits for it nor changes what it sees."""
    with ledger.read() as before:
        assert events.last_number(before) == 0
        with ledger.write() as tx:
            events.add(tx, "job", "a", "create", source="", target="in_queue", at=make.NOW)
        assert events.last_number(before) == 0
    with ledger.read() as afterwards:
        assert events.last_number(afterwards) == 1


def test_waiting_ends_with_the_commit_that_is_waited_for(ledger: Ledger) -> None:
    """Who waits is woken by the commit, in whatever thread it is made."""

    def write() -> None:
        for number in range(3):
            with ledger.write() as tx:
                make.add_instance(tx, association=number)

    def third() -> int:
        with ledger.read() as tx:
            return instances.last_association(tx) == 2

    writer = threading.Thread(target=write)
    writer.start()
    assert ledger.wait_for(third, PATIENCE)
    writer.join()
    with pytest.raises(TimeoutError, match="not so within 0 s: 0"):
        ledger.wait_for(lambda: 0, 0)


def test_closing_lets_those_who_wait_go(ledger: Ledger) -> None:
    """Nobody waits for a ledger that is closed."""
    waiting = threading.Thread(target=ledger.next_commit, args=(0, PATIENCE * 10))
    waiting.start()
    ledger.close()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


WRITER = """
import sys
from dicom_adapter.ledger import Ledger, events
from tests.ledger.make import NOW
ledger = Ledger(sys.argv[1])
print("made", flush=True)
sys.stdin.readline()
ledger.open()
for number in range(50):
    with ledger.write() as tx:
        last = events.last_number(tx)
        events.add(tx, "job", str(last), "x", source="", target="", at=NOW, actor=sys.argv[2])
"""


def test_two_processes_write_at_once(url: str) -> None:
    """Two ledgers over one database, opened at once while it is new, lose no write of either."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "made\n"
    for writer in writers:
        writer.communicate("go\n", timeout=PATIENCE)
        assert writer.returncode == 0
    ledger = Ledger(url)
    ledger.open()
    with ledger.read() as tx:
        found = events.after(tx, 0, "job", 1000)
    ledger.close()
    assert sorted(event.actor for event in found) == ["one"] * 50 + ["two"] * 50
    # Each saw all that was written before it: a write begins with the lock, not with a snapshot.
    assert [event.subject for event in found] == [str(number) for number in range(100)]
