"""Gives the audit trail away, whole or in part, to those who keep it elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from dicom_adapter.ledger import (
    Ledger,
    deliveries,
    events,
    groups,
    instances,
    jobs,
    pauses,
    tokens,
)
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller, Event

PER_PAGE = 1000

# Whose reasons are this program's own words, or a person's. Others are those of a job processor or
# of another platform, and may quote what they have failed on.
_OWN_KINDS = frozenset({jobs.KIND, pauses.KIND, tokens.KIND})
_OWN_WORDS = frozenset(
    {
        (groups.KIND, "discard"),
        (instances.KIND, "variant"),
        (deliveries.KIND, "park"),
        (deliveries.KIND, "discard"),
    }
)


@dataclass(frozen=True)
class Period:
    """Which events are wanted; None is no limit."""

    #: From this time on.
    since: datetime | None = None
    #: Before this time.
    until: datetime | None = None


class AuditTrail:
    """Reads the events of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def pages(self, caller: Caller, after: int, period: Period) -> Iterator[list[Event]]:
        """Yield the events behind a number, the oldest first, up to the newest there is now.

        Each page is a transaction of its own: however slowly they are taken, nobody waits for it.

        Raises:
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.ADMIN)
        with self._ledger.read() as tx:
            last = events.last_number(tx)
        while after < last:
            with self._ledger.read() as tx:
                page = events.between(
                    tx, after, last, since=period.since, until=period.until, limit=PER_PAGE
                )
            if not page:
                return
            yield list(map(_without_quotes, page))
            after = page[-1].number


def _without_quotes(event: Event) -> Event:
    if event.kind in _OWN_KINDS or (event.kind, event.action) in _OWN_WORDS:
        return event
    return replace(event, reason="")
