"""Compares the spool with the ledger: every file has its row, every row its file and its bytes.

What can be mended is mended: a file that the ledger does not know is recorded. Nothing is deleted
but what is kept, or was delivered, all the same. What needs a person is in the log and in `status`.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

import structlog

from dicom_adapter.errors import UnreadableInstanceError
from dicom_adapter.ledger import Ledger, instances, stock
from dicom_adapter.ledger.stock import Recording
from dicom_adapter.model import Disorder, DisorderKind, Received, Resend
from dicom_adapter.receive.adoption import digest_of, read_back
from dicom_adapter.receive.spool import FOLDER_DIGITS, Spool, is_id

# Between its name and its row, a file that is being received has neither for a moment.
SETTLED = timedelta(minutes=1)

log = structlog.get_logger()


class Upkeep:
    """Checks the spool, and remembers what it could not mend."""

    def __init__(self, spool: Spool, ledger: Ledger, *, adopted: Callable[[str], None]) -> None:
        """Name the places.

        Args:
            spool: The files.
            ledger: The rows.
            adopted: Told of each AE title that has a new instance.
        """
        self._spool = spool
        self._ledger = ledger
        self._adopted = adopted
        #: What the last whole check could not mend, by kind.
        self.unmended: dict[DisorderKind, int] = {}

    def has_files(self) -> bool:
        """Tell whether the ledger has any file in the spool."""
        with self._ledger.read() as tx:
            return bool(stock.folders(tx, FOLDER_DIGITS))

    def mend(self) -> None:
        """Compare and mend before anything is received; what was found is in the log."""
        for _ in logged(self.check(is_receiving=False)):
            """Each is in the log."""

    def check(self, *, scrub: bool = False, is_receiving: bool = True) -> Iterator[Disorder]:
        """Compare and mend; yield each disorder.

        Args:
            scrub: Read every file, and compare its bytes with what was received.
            is_receiving: Whether instances may come meanwhile; what is quite new is then let be.
        """
        before = datetime.now(UTC) - SETTLED if is_receiving else None
        unmended: dict[DisorderKind, int] = {}
        with self._ledger.read() as tx:
            known = stock.folders(tx, FOLDER_DIGITS)
        for folder in sorted({*known, *self._spool.folders()}):
            for disorder in self._check_folder(folder, before, scrub=scrub):
                if disorder.needs_person:
                    unmended[disorder.kind] = unmended.get(disorder.kind, 0) + 1
                yield disorder
        self.unmended = unmended

    def _check_folder(
        self, folder: str, before: datetime | None, *, scrub: bool
    ) -> Iterator[Disorder]:
        # The files first: what is recorded between the two looks is then known.
        files = self._spool.files(folder)
        with self._ledger.read() as tx:
            rows = stock.recorded(tx, folder)
        for name, stat in files.items():
            row = rows.get(name)
            if not is_id(name):
                cure = f"no file of this service: look at it in spool/instances/{folder}"
                yield Disorder(DisorderKind.UNKNOWN, name, cure)
            elif row is not None and row.has_file:
                yield from self._compare(name, row, stat.st_size, scrub=scrub)
            elif before is None or datetime.fromtimestamp(stat.st_ctime, UTC) < before:
                yield from self._take_in(name, row)
        for instance_id, row in rows.items():
            if row.has_file and instance_id not in files:
                yield from self._miss(instance_id)

    def _compare(
        self, instance_id: str, row: Recording, size: int, *, scrub: bool
    ) -> Iterator[Disorder]:
        try:
            is_whole = size == row.size and (
                not scrub or digest_of(self._spool.path_of(instance_id)) == row.sha256
            )
            if is_whole:
                return
            # Out of the way: where the same bytes are sent again, they take its place.
            self._spool.set_aside(instance_id)
        except FileNotFoundError:
            # It was reclaimed meanwhile.
            return
        except OSError as error:
            yield _unreadable(instance_id, error)
            return
        cure = "it has other bytes than were received: moved to spool/aside; have it sent again"
        yield Disorder(DisorderKind.BROKEN, instance_id, cure)

    def _take_in(self, instance_id: str, row: Recording | None) -> Iterator[Disorder]:
        if row is not None:
            # Its removal was not flushed when the power went.
            self._spool.remove(instance_id)
            yield Disorder(DisorderKind.REDUNDANT, instance_id, "it was reclaimed: removed again")
            return
        try:
            instance = read_back(self._spool.path_of(instance_id), instance_id)
        except FileNotFoundError:
            return
        except OSError as error:
            yield _unreadable(instance_id, error)
            return
        except UnreadableInstanceError as error:
            self._spool.set_aside(instance_id)
            yield Disorder(DisorderKind.UNKNOWN, instance_id, f"{error}: moved to spool/aside")
            return
        with self._ledger.write() as tx:
            (told,) = instances.record(tx, [Received(instance, resend=Resend.IGNORE)])
        if told.is_new:
            self._adopted(instance.ae_title)
            cure = f"it had no row: recorded, and handled as if {instance.ae_title} had just got it"
            yield Disorder(DisorderKind.ADOPTED, instance_id, cure)
        else:
            self._spool.merge(instance_id, told.instance_id)
            cure = f"it had no row: removed, for {told.instance_id} has the same bytes"
            yield Disorder(DisorderKind.REDUNDANT, instance_id, cure)

    def _miss(self, instance_id: str) -> Iterator[Disorder]:
        with self._ledger.read() as tx:
            row = stock.recorded(tx, instance_id).get(instance_id)
        # It may have been reclaimed, or have come, since the first look.
        if row is not None and row.has_file and not self._spool.path_of(instance_id).exists():
            cure = "its file is gone: have it sent again, or discard its group"
            yield Disorder(DisorderKind.MISSING, instance_id, cure)


def _unreadable(instance_id: str, error: OSError) -> Disorder:
    cure = f"its file cannot be read: {error.strerror}: see to the disk"
    return Disorder(DisorderKind.UNREADABLE, instance_id, cure)


def logged(found: Iterable[Disorder]) -> Iterator[Disorder]:
    """Yield disorders, and have each in the log."""
    for disorder in found:
        tell = log.error if disorder.needs_person else log.warning
        tell(
            "a file and the ledger do not agree",
            action=f"upkeep.{disorder.kind}",
            instance=disorder.instance_id,
            cure=disorder.cure,
        )
        yield disorder
