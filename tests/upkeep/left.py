"""What a service has left behind, to be tampered with before another one starts on it."""

import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from dicom_adapter.model import Disorder, DisorderKind
from tests.support import CONFIG, SUCCESS, ManualClock, Running, make_instance, running, send

#: Everything stays, so that it can be looked at.
KEPT = CONFIG.replace("reserve: 0", "reserve: 0, retain: 1d")


class Left:
    """The data of a service that has stopped: one instance, which waits in an open group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "data" / "spool"
        self.clock = ManualClock()
        self.sent = make_instance()
        with self.running() as adapter:
            assert send(adapter.port, [self.sent]) == [SUCCESS]
            adapter.grouped(1)
        (self.row,) = self.rows()
        self.id = str(self.row["id"])
        (self.file,) = self.spool.glob("instances/*/*.dcm")

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "data" / "ledger.db"

    @property
    def aside(self) -> list[str]:
        """The names of the files that were moved out of the way."""
        return sorted(path.name for path in self.spool.glob("aside/*"))

    @property
    def files(self) -> list[str]:
        """The names of the files among the instances."""
        return sorted(path.stem for path in self.spool.glob("instances/*/*"))

    def rows(self) -> list[dict[str, Any]]:
        """Return what the ledger has of each instance."""
        with closing(sqlite3.connect(self.ledger)) as ledger:
            ledger.row_factory = sqlite3.Row
            return [dict(row) for row in ledger.execute("select * from instances order by seq")]

    def change(self, statement: str) -> None:
        """Change the ledger past every service."""
        with closing(sqlite3.connect(self.ledger, isolation_level=None)) as ledger:
            assert ledger.execute(statement).rowcount == 1

    def forget(self) -> None:
        """Lose the ledger."""
        for path in self.ledger.parent.glob("ledger.db*"):
            path.unlink()

    def copy(self, name: str, content: bytes) -> Path:
        """Put another file beside the instance's."""
        file = self.file.with_name(name)
        file.write_bytes(content)
        return file

    def running(self) -> AbstractContextManager[Running]:
        """Run a service over the data, until the block ends."""
        return running(self.folder, KEPT, self.clock)


def checked(adapter: Running, *, scrub: bool = False, is_receiving: bool = False) -> list[Disorder]:
    """Have a service compare; return what it found."""
    upkeep = adapter.service._upkeep  # noqa: SLF001 - the operation behind `fsck`
    return list(upkeep.check(scrub=scrub, is_receiving=is_receiving))


def kinds(found: list[Disorder]) -> list[tuple[DisorderKind, str]]:
    """Return what is wrong with which."""
    return [(disorder.kind, disorder.instance_id) for disorder in found]
