"""What a message says, and how it is signed, by the conventions of Standard Webhooks 1.0."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version

from dicom_adapter.config import Webhook
from dicom_adapter.lifecycle import Reason
from dicom_adapter.model import Delivery, Event, JobFacts

DELETED = "deleted"

_REASONS = frozenset(Reason)


def concerns(webhook: Webhook, event: Event, job: JobFacts) -> bool:
    """Tell whether a webhook is to be told of a move."""
    return (
        (event.to_state in webhook.on or event.action in webhook.on)
        and (not webhook.pipelines or job.pipeline in webhook.pipelines)
        and (not webhook.ae_titles or job.ae_title in webhook.ae_titles)
    )


def type_of(event: Event) -> str:
    """Return the type of a message: what has become of the job."""
    return f"job.{event.to_state or DELETED}"


def body_of(event: Event, job: JobFacts) -> str:
    """Return a message as it goes over the wire, each time with the same bytes."""
    return json.dumps(
        {
            "type": type_of(event),
            "timestamp": _time(event.at),
            "data": {
                "event": event.number,
                "action": event.action,
                "id": job.id,
                "name": job.name,
                "project": job.project,
                "pipeline": job.pipeline,
                "pipeline_version": job.pipeline_version,
                "ae_title": job.ae_title,
                "from": event.from_state,
                "to": event.to_state,
                "reason": _reason(event, job),
                "priority": job.priority,
                "created_at": _time(job.created_at),
                "started_at": _time(job.started_at),
                "finished_at": _time(job.finished_at),
                "instances": job.instances,
                "attempts": job.attempts,
            },
        },
        separators=(",", ":"),
    )


def headers_of(delivery: Delivery, keys: Iterable[bytes], now: datetime) -> list[tuple[str, str]]:
    """Return the headers of one attempt: a receiver with any of the keys can check it."""
    sent_at = str(int(now.timestamp()))
    signed = f"{delivery.id}.{sent_at}.{delivery.body}".encode()
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", f"dicom-adapter/{version('dicom-adapter')}"),
        ("webhook-id", delivery.id),
        ("webhook-timestamp", sent_at),
        ("webhook-signature", " ".join(f"v1,{_signature(key, signed)}" for key in keys)),
    ]


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _reason(event: Event, job: JobFacts) -> str:
    # The event has a person's own words where there are any, and those are not for everybody.
    if event.reason in _REASONS:
        return event.reason
    return job.reason if job.state == event.to_state else ""


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
