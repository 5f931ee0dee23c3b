"""What the service says of itself: what runs, what is kept and why, and what needs a person."""

from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version

from dicom_adapter.clock import Clock
from dicom_adapter.config import Settings, StorageSettings
from dicom_adapter.config.tls import expiring
from dicom_adapter.ledger import Ledger, attention, jobs, pauses, stock
from dicom_adapter.model import Disk, Rejection, ServiceStatus
from dicom_adapter.platform.queue import told
from dicom_adapter.receive.spool import Spool
from dicom_adapter.upkeep import Upkeep

# So long a failed job is told of: who looks once a day sees each of them.
FAILED_LATELY = timedelta(days=1)
GIB = 1024**3

_PARKED = "`webhooks list --state parked`"


class Overview:
    """Knows what there is to tell of a service since its start, which is now."""

    def __init__(self, ledger: Ledger, spool: Spool, upkeep: Upkeep, clock: Clock) -> None:
        self._ledger = ledger
        self._spool = spool
        self._upkeep = upkeep
        self._clock = clock
        self._started_at = clock.now()

    def status(
        self,
        settings: Settings,
        *,
        dicom: tuple[str, ...],
        grpc: tuple[str, ...],
        associations: int,
        runs_jobs: bool,
        rejections: tuple[Rejection, ...],
    ) -> ServiceStatus:
        """Return the status of a service that runs by these settings."""
        with self._ledger.read() as tx:
            keeping, job_counts = tuple(stock.keeping(tx)), jobs.counts(tx)
        return ServiceStatus(
            version=version("dicom-adapter"),
            started_at=self._started_at,
            dicom=dicom,
            grpc=grpc,
            associations=associations,
            keeping=keeping,
            disk=Disk(
                free=self._spool.free(),
                used_fraction=self._spool.used_fraction(),
                watermark=settings.storage.watermark,
                reserve=settings.storage.reserve,
            ),
            durability=settings.storage.durability,
            platform=settings.platform.address,
            jobs=job_counts if runs_jobs else {},
            attention=tuple(self._attention(settings)),
            rejections=rejections,
        )

    def _attention(self, settings: Settings) -> Iterator[str]:
        with self._ledger.read() as tx:
            waiting = attention.waiting(tx)
            failed = attention.failed_jobs(tx, self._clock.now() - FAILED_LATELY)
            paused = pauses.current(tx)
        for count, thing, what in (
            (waiting.parked_groups, "group", "parked: see `groups list`"),
            (waiting.quarantined, "instance", "in quarantine: see `quarantine list`"),
            (waiting.parked_submissions, "submission", "parked: see why in `submissions list`"),
            (
                waiting.repeated_submissions,
                "submission",
                "waiting for the platform: see `submissions list`",
            ),
            (waiting.parked_deliveries, "message", f"parked: see why in {_PARKED}"),
            (waiting.repeated_deliveries, "message", "waiting for a webhook: see `webhooks list`"),
        ):
            if count:
                yield f"{count} {thing} is {what}" if count == 1 else f"{count} {thing}s are {what}"
        if paused is not None:
            yield f"{told(paused)}: no job is started until `platform resume`"
        if unmended := sum(self._upkeep.unmended.values()):
            files = "file of the spool does" if unmended == 1 else "files of the spool do"
            yield f"{unmended} {files} not agree with the ledger: see `fsck`"
        if failed:
            jobs_have = "job has" if failed == 1 else "jobs have"
            yield f"{failed} {jobs_have} failed since yesterday: see `jobs list --state failed`"
        for title, count in sorted(waiting.instances_of.items()):
            if title not in settings.ae_titles:
                yield (
                    f"AE title {title} is not configured any more, but {count} of its instances "
                    "wait for its job processor: configure it again, or discard its groups"
                )
        if set_by := self._clock.was_set_by():
            ahead = "ahead" if set_by > timedelta() else "back"
            away = timedelta(seconds=round(abs(set_by).total_seconds()))
            yield (
                f"the machine's clock was set {ahead} by {away}: times go by the old one until a "
                "restart"
            )
        yield from self._disk_attention(settings.storage)
        yield from expiring(settings.dicom.tls, self._clock.now())

    def _disk_attention(self, storage: StorageSettings) -> Iterator[str]:
        free, used = self._spool.free(), self._spool.used_fraction()
        if free < storage.reserve:
            yield (
                f"C-STORE is answered 0xA700: {free / GIB:.1f} GiB are free, less than "
                f"storage.reserve, {storage.reserve / GIB:.1f} GiB"
            )
        if used > storage.watermark:
            yield f"the disk is {used:.0%} full, above storage.watermark"
