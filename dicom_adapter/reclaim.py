"""The storage reclaimer: removes what nothing needs any more, and nothing else.

An instance goes when its processor has let it go, every submission of it is settled, and `retain`
has passed. Above the watermark such instances go ahead of `retain`, oldest first, then the inputs
and outputs of ended jobs ahead of `keep`. What is not delivered never goes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import Keep, StorageSettings
from dicom_adapter.ledger import Ledger, deliveries, jobs, stock, uploads
from dicom_adapter.platform.uploads import Uploads
from dicom_adapter.platform.workspace import Workspaces
from dicom_adapter.receive.spool import Spool
from dicom_adapter.worker import Worker

PER_TRANSACTION = 100
# The disk fills without telling anybody, so it is looked at this often while something could go.
LOOK_AGAIN = timedelta(seconds=60)
# It is woken by every job that ends: what a hundred of them have left goes together.
REST = timedelta(seconds=1)
# A platform's copy of an upload is linked into its job; this long for the other jobs of its group.
KEEP_UPLOADS = timedelta(days=1)
# So long `webhooks list` shows what was sent, or was given up.
KEEP_DELIVERIES = timedelta(days=7)

log = structlog.get_logger()


@dataclass(frozen=True)
class Places:
    """The folders that the reclaimer frees."""

    spool: Spool
    workspaces: Workspaces
    uploads: Uploads


class Reclaimer:
    """Removes files in a thread of its own, when woken and when the next one's time has come."""

    def __init__(
        self, storage: StorageSettings, keep: Keep, places: Places, ledger: Ledger, clock: Clock
    ) -> None:
        self._go_by(storage, keep)
        self._places = places
        self._ledger = ledger
        self._clock = clock
        self._pressed = False
        self._worker = Worker("reclaimer", self._work, clock, rest=REST)

    def _go_by(self, storage: StorageSettings, keep: Keep) -> None:
        self._storage = storage
        self._keep = {
            part: timedelta(seconds=getattr(keep, part)) for part in ("inputs", "outputs", "logs")
        }
        self._retain = timedelta(seconds=storage.retain)

    def reload(self, storage: StorageSettings, keep: Keep) -> None:
        """Go by other settings from now on, also with what is here already."""
        self._go_by(storage, keep)
        self.wake()

    def start(self) -> None:
        """Say what is kept, then start."""
        self._tell_kept()
        self._worker.start()

    def wake(self) -> None:
        """Look again: something was delivered, or a job has ended."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current removal end, then stop."""
        self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        now = self._clock.now()
        with self._ledger.read() as tx:
            begun = stock.reclaiming(tx)
        # What a crash or a failed unlink left half removed.
        self._remove_instances(begun)
        removed = sum(self._reclaim_instances(now - self._retain))
        for part, keep in self._keep.items():
            self._reclaim_jobs(part, now - keep)
        self._reclaim_uploads(now - KEEP_UPLOADS)
        self._forget_deliveries(now - KEEP_DELIVERIES)
        removed += self._relieve(now)
        if removed:
            self._tell_kept()
        return self._next(now)

    def _reclaim_instances(self, before: datetime) -> Iterator[int]:
        """Remove instances that may go since `before`, a portion at a time; yield how many."""
        while not self._worker.stopping:
            with self._ledger.write() as tx:
                ids = stock.begin_reclaim(tx, before, PER_TRANSACTION)
            if not ids:
                return
            yield self._remove_instances(ids)

    def _remove_instances(self, ids: list[str]) -> int:
        # Marked before, unlinked and synced, then marked done: a crash leaves no row that claims a
        # file which is gone, and no file without a row.
        gone = [instance_id for instance_id in ids if self._unlink(instance_id)]
        if gone:
            with self._ledger.write() as tx:
                stock.end_reclaim(tx, gone, self._clock.now())
            log.info("instances reclaimed", action="reclaimed.instances", instances=len(gone))
        return len(gone)

    def _unlink(self, instance_id: str) -> bool:
        try:
            self._places.spool.remove(instance_id)
        except OSError as error:
            # It stays marked and is tried again later; one bad file must not keep all the others.
            log.error(  # noqa: TRY400 - it says what a traceback would
                "an instance cannot be removed; it is tried again",
                action="reclaim.failed",
                instance=instance_id,
                why=error.strerror,
            )
            return False
        return True

    def _reclaim_jobs(self, part: str, before: datetime) -> bool:
        """Remove a part of the jobs that ended before; True when there was one."""
        with self._ledger.read() as tx:
            ids = jobs.ended_before(tx, part, before, PER_TRANSACTION)
        if not ids:
            return False
        # Removed first: what a crash leaves unmarked is removed again, which does no harm.
        for job_id in ids:
            self._places.workspaces.of(job_id).reclaim(part)
        with self._ledger.write() as tx:
            jobs.note_reclaimed(tx, part, ids, self._clock.now())
        log.info("files of ended jobs reclaimed", action=f"reclaimed.{part}", jobs=len(ids))
        return True

    def _reclaim_uploads(self, before: datetime) -> None:
        with self._ledger.read() as tx:
            oldest = uploads.next_unused(tx)
        if oldest is None or oldest > before:
            return
        removed = self._places.uploads.reclaim(before, PER_TRANSACTION)
        log.info("uploads reclaimed", action="reclaimed.uploads", uploads=removed)

    def _forget_deliveries(self, before: datetime) -> None:
        while not self._worker.stopping:
            with self._ledger.read() as tx:
                oldest = deliveries.next_settled(tx)
            if oldest is None or oldest > before:
                return
            with self._ledger.write() as tx:
                deliveries.forget_settled(tx, before, PER_TRANSACTION)

    def _relieve(self, now: datetime) -> int:
        """Free what may go ahead of its time, until the disk is below the watermark."""
        removed = 0
        ahead = self._reclaim_instances(now)
        while self._full() and (portion := next(ahead, 0)):
            removed += portion
        for part in ("inputs", "outputs"):
            while self._full() and self._reclaim_jobs(part, now):
                removed += 1
        self._tell_pressure(pressed=self._full())
        return removed

    def _full(self) -> bool:
        return self._places.spool.used_fraction() > self._storage.watermark

    def _tell_pressure(self, *, pressed: bool) -> None:
        if pressed and not self._pressed:
            log.warning(
                "the disk is above storage.watermark, and nothing delivered is left to free: "
                "make room, or see what is kept in `dicom-adapter status`",
                action="disk.full",
                used=round(self._places.spool.used_fraction(), 3),
                watermark=self._storage.watermark,
            )
        self._pressed = pressed

    def _tell_kept(self) -> None:
        with self._ledger.read() as tx:
            kept = {keeping.reason: keeping.instances for keeping in stock.keeping(tx)}
        if kept:
            log.info("kept in the spool", action="kept", kept=kept)
        else:
            log.info("the spool is empty", action="kept")

    def _next(self, now: datetime) -> datetime | None:
        with self._ledger.read() as tx:
            delivered, upload = stock.next_reclaimable(tx), uploads.next_unused(tx)
            settled = deliveries.next_settled(tx)
            again = [now + LOOK_AGAIN for _ in stock.reclaiming(tx)[:1]]
            ends = {part: jobs.next_end(tx, part) for part in self._keep}
        times = again + [at + self._keep[part] for part, at in ends.items() if at is not None]
        if delivered is not None:
            times.append(delivered + self._retain)
        if upload is not None:
            times.append(upload + KEEP_UPLOADS)
        if settled is not None:
            times.append(settled + KEEP_DELIVERIES)
        return min(*times, now + LOOK_AGAIN) if times else None
