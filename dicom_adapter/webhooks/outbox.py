"""Makes deliveries of the moves of jobs, and has each webhook's sent by a thread of its own.

A move is a row of the ledger, numbered in the order of the commits. Deliveries are made of those
that come after the last one that was looked at, in one transaction with that number: none is left
out, and none is made twice. Whether a message has arrived is known only after it was sent, so what
a crash leaves in between is sent again, under the same id.
"""

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.config import Webhook
from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import Ledger, deliveries, events, jobs
from dicom_adapter.model import Delivery, DeliveryState, Event, JobFacts
from dicom_adapter.webhooks.message import body_of, concerns, type_of
from dicom_adapter.webhooks.sender import Sender
from dicom_adapter.worker import Worker

PER_TRANSACTION = 200
# Most commits are of no job: what some of them have changed is looked at at once.
REST = timedelta(seconds=0.1)

Configured = Mapping[str, Webhook]

log = structlog.get_logger()


class WebhookOutbox:
    """Tells the webhooks of the configuration of the jobs of a ledger."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._changing = threading.Lock()
        self._wanted: Configured = {}
        # What the ledger knows, too.
        self._registered: Configured = {}
        self._senders: dict[str, Sender] = {}
        self._seen = 0
        self._worker = Worker("webhooks", self._work, clock, rest=REST)

    def start(self, webhooks: Configured) -> None:
        """Start telling, with what an earlier run left.

        Raises:
            UnavailableError: the ledger cannot be written.
        """
        self._wanted = webhooks
        self._register()
        self._ledger.tell(self._committed)
        self._worker.start()

    def reload(self, webhooks: Configured) -> None:
        """Tell these webhooks from now on, those that are new of what happens after this."""
        self._wanted = webhooks
        try:
            self._register()
        except UnavailableError as error:
            log.error(  # noqa: TRY400 - it says why
                "the webhooks change as soon as the ledger can be written",
                action="webhooks.waiting",
                why=str(error),
            )
            self._worker.wake()

    def wake(self) -> None:
        """Look at what waits: a person wants it sent now."""
        for sender in list(self._senders.values()):
            sender.wake()

    def stop(self, timeout: float) -> None:
        """Let what is being sent end, for all webhooks together, then stop."""
        ends_at = time.monotonic() + timeout
        self._worker.stop(timeout)
        for sender in self._senders.values():
            sender.end_soon()
        for sender in self._senders.values():
            sender.stop(max(ends_at - time.monotonic(), 0))

    def _committed(self) -> None:
        if self._registered:
            self._worker.wake()

    # Who is told

    def _register(self) -> None:
        """Bring the ledger and the senders up to the webhooks that are wanted."""
        with self._changing:
            wanted, before = self._wanted, self._registered
            changed = {name for name in wanted if name in before and wanted[name] != before[name]}
            dropped = self._write_registered(wanted, changed)
            for name, count in dropped.items():
                log.warning(
                    "a webhook is not configured any more: what was not sent to it is discarded",
                    action="webhook.removed",
                    webhook=name,
                    messages=count,
                )
                if name in self._senders:
                    self._senders.pop(name).stop(0)
            for name in changed:
                self._senders[name].go_by(wanted[name])
                self._senders[name].wake()
            for name in wanted.keys() - self._senders.keys():
                self._senders[name] = Sender(name, wanted[name], self._ledger, self._clock)
                self._senders[name].start()
            self._registered = wanted

    def _write_registered(self, wanted: Configured, changed: set[str]) -> dict[str, int]:
        """Write who is told; return who is told no more, with how many messages are given up."""
        with self._ledger.read() as tx:
            known = deliveries.registered(tx)
        if wanted.keys() == known.keys() and not changed:
            return {}
        now = self._clock.now()
        with self._ledger.write() as tx:
            last = events.last_number(tx)
            for name in wanted.keys() - known.keys():
                deliveries.register(tx, name, last)
            for name in changed:
                # What was in the way may be what a person has changed.
                deliveries.hurry(tx, name, now)
            return {
                name: deliveries.unregister(tx, name, now)
                for name in sorted(known.keys() - wanted.keys())
            }

    # What they are told

    def _work(self) -> None:
        if self._registered is not self._wanted:
            self._register()
        while not self._worker.stopping and self._look():
            pass

    def _look(self) -> bool:
        """Make deliveries of the next moves; False when there are none."""
        webhooks = self._registered
        with self._ledger.read() as tx:
            # From the first that some webhook was not told of; after it, by what was seen here.
            seen = max(self._seen, min(deliveries.registered(tx).values(), default=0))
            news, last = events.after(tx, seen, jobs.KIND, PER_TRANSACTION), events.last_number(tx)
        if not news or not webhooks:
            self._seen = last
            return False
        with self._ledger.write() as tx:
            told = deliveries.registered(tx)
            known = deliveries.facts(tx, {event.subject for event in news})
            made = [
                delivery
                for event in news
                for delivery in self._deliveries(event, known.get(event.subject), webhooks, told)
            ]
            for delivery in made:
                deliveries.add(tx, delivery)
            deliveries.advance(tx, news[-1].number)
        self._seen = news[-1].number
        if made:
            self.wake()
        return True

    def _deliveries(
        self, event: Event, job: JobFacts | None, webhooks: Configured, told: Mapping[str, int]
    ) -> list[Delivery]:
        if job is None:
            return []
        return [
            self._delivery(name, event, job)
            for name, webhook in webhooks.items()
            # A webhook that a reload has just taken away is in the one, but not in the other.
            if name in told and told[name] < event.number and concerns(webhook, event, job)
        ]

    def _delivery(self, name: str, event: Event, job: JobFacts) -> Delivery:
        now = self._clock.now()
        return Delivery(
            id=uuid4().hex,
            webhook=name,
            event=event.number,
            type=type_of(event),
            job_id=job.id,
            job=job.name,
            body=body_of(event, job),
            state=DeliveryState.PENDING,
            attempts=0,
            created_at=now,
            queued_at=now,
            ready_at=now,
            settled_at=None,
            status=None,
            error="",
        )
