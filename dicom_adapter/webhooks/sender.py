"""Sends what is due to one webhook, until its receiver has taken it or refuses it for good."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus

import structlog

from dicom_adapter.backoff import pause_after
from dicom_adapter.clock import Clock
from dicom_adapter.config import Webhook
from dicom_adapter.ledger import Ledger, deliveries
from dicom_adapter.model import Delivery
from dicom_adapter.webhooks.message import headers_of
from dicom_adapter.webhooks.post import Answer, Poster
from dicom_adapter.worker import Worker

# Whoever asks for a longer one is asked again all the same.
LONGEST_WISH = timedelta(days=1)
# Over a weekend, nobody may be there to start a receiver again.
GIVE_UP_AFTER = timedelta(days=3)

# Refusals that pass: to be asked again is what they are for.
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_KEY = ": see whether it has the same key"
_CURES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: _KEY,
    HTTPStatus.FORBIDDEN: _KEY,
    HTTPStatus.GONE: ": it wants no more messages",
}

log = structlog.get_logger()


class Sender:
    """Works off the deliveries to one webhook, the oldest first, in a thread of its own."""

    def __init__(self, name: str, webhook: Webhook, ledger: Ledger, clock: Clock) -> None:
        self._name = name
        self._ledger = ledger
        self._clock = clock
        self._left_behind = False
        self.go_by(webhook)
        self._worker = Worker(f"webhook {name}", self._work, clock)

    def go_by(self, webhook: Webhook) -> None:
        """Send by other settings from the next message on."""
        self._by = (webhook, Poster(webhook))

    def start(self) -> None:
        """Start sending, with what an earlier run left."""
        self._worker.start()

    def wake(self) -> None:
        """Look again: there is something to send, or a person wants it sent now."""
        self._worker.wake()

    def end_soon(self) -> None:
        """Begin no other message."""
        self._worker.stop(0)

    def stop(self, timeout: float) -> None:
        """Let the message that is being sent end, then stop; after the timeout leave it behind.

        Nobody notes then what came of it: it is sent again after the next start.
        """
        self._left_behind = not self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        while not self._worker.stopping:
            with self._ledger.read() as tx:
                delivery = deliveries.due(tx, self._name, self._clock.now())
            if delivery is None:
                break
            self._send(delivery)
        if self._worker.stopping:
            return None
        with self._ledger.read() as tx:
            return deliveries.next_ready(tx, self._name)

    def _send(self, delivery: Delivery) -> None:
        webhook, poster = self._by
        now = self._clock.now()
        headers = headers_of(delivery, webhook.secret.keys, now)
        answer = poster.post(headers, delivery.body, now)
        if not self._left_behind:
            self._note(delivery, answer)

    def _note(self, delivery: Delivery, answer: Answer) -> None:
        now = self._clock.now()
        if answer.status is not None and is_taken(answer.status):
            with self._ledger.write() as tx:
                deliveries.note_sent(tx, delivery.id, answer.status, now)
            log.info("a webhook was told", action="webhook.sent", **self._about(delivery, answer))
        elif answer.status is not None and is_refusal(answer.status):
            self._park(delivery, answer, why_of(answer), now)
        elif now - delivery.queued_at >= GIVE_UP_AFTER:
            self._park(delivery, answer, f"for {GIVE_UP_AFTER.days} days: {why_of(answer)}", now)
        else:
            self._postpone(delivery, answer, now)

    def _park(self, delivery: Delivery, answer: Answer, why: str, now: datetime) -> None:
        with self._ledger.write() as tx:
            deliveries.park(tx, delivery.id, now, answer.status, why)
        log.error(
            "a webhook does not take a message: see `dicom-adapter webhooks list`",
            action="webhook.parked",
            **self._about(delivery, answer),
            why=why,
        )

    def _postpone(self, delivery: Delivery, answer: Answer, now: datetime) -> None:
        pause = pause_after(delivery.attempts)
        if answer.retry_after is not None:
            pause = max(pause, min(answer.retry_after, LONGEST_WISH))
        why = why_of(answer)
        with self._ledger.write() as tx:
            deliveries.postpone(tx, delivery.id, now + pause, answer.status, why)
            # Where nobody answers, or who answers wants a pause, the next message fares no better.
            # An answer like 500 may be about this message alone, so the others do not wait for it.
            if answer.status is None or answer.retry_after is not None:
                deliveries.hold(tx, self._name, now + pause)
        log.warning(
            "a webhook did not take a message; it is sent again",
            action="webhook.postponed",
            **self._about(delivery, answer),
            pause_seconds=round(pause.total_seconds(), 1),
            why=why,
        )

    def _about(self, delivery: Delivery, answer: Answer) -> dict[str, object]:
        return {
            "webhook": self._name,
            "delivery": delivery.id,
            "type": delivery.type,
            "job": delivery.job_id,
            "attempt": delivery.attempts + 1,
            "status": answer.status,
        }


def is_taken(status: int) -> bool:
    """Tell whether an answer says that the message was taken."""
    return HTTPStatus(200) <= status < HTTPStatus.MULTIPLE_CHOICES


def is_refusal(status: int) -> bool:
    """Tell whether an answer says that the message is not wanted, however often it is sent."""
    is_about_message = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_about_message and status not in _PASSING


def why_of(answer: Answer) -> str:
    """Return why a message was not taken; nothing that the receiver has sent is quoted."""
    if answer.status is None:
        return answer.problem
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST
    elsewhere = ": redirects are not followed, configure the address that it names"
    return f"answered {answer.status}{elsewhere if is_redirect else _CURES.get(answer.status, '')}"
