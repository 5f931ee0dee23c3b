"""Shows what webhooks were told and are to be told, and does what people decide of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_adapter.clock import Clock
from dicom_adapter.errors import InvalidArgumentError, NotFoundError
from dicom_adapter.ledger import Ledger, deliveries
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller, Delivery, DeliveryState
from dicom_adapter.model.paging import page_of, token_of


@dataclass(frozen=True)
class DeliveryPage:
    """A page of deliveries, and the token of the next one, empty on the last."""

    deliveries: tuple[Delivery, ...]
    next_token: str


class WebhookOperations:
    """Shows and decides the deliveries of a ledger."""

    def __init__(self, ledger: Ledger, clock: Clock, changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._changed = changed

    def listed(
        self, caller: Caller, states: Sequence[str], webhook: str, page_size: int, token: str
    ) -> DeliveryPage:
        """Return a page of deliveries, the newest first; without states those of every state.

        Raises:
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: there is no such state, the page size is negative, or the token
                none that this gave.
        """
        caller.check_everywhere(Role.VIEWER)
        unknown = set(states) - set(DeliveryState)
        if unknown:
            raise InvalidArgumentError("states", f"must be of {', '.join(DeliveryState)}")
        size, before = page_of(page_size, token)
        wanted = [DeliveryState(state) for state in states]
        with self._ledger.read() as tx:
            page, after = deliveries.listed(tx, wanted, webhook, size, before)
        return DeliveryPage(tuple(page), token_of(after))

    def retry(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Have messages sent again now and return their ids.

        Raises:
            PermissionDeniedError: the caller may not.
            NotFoundError: one of them is not pending or parked; nothing was changed.
        """
        caller.check_everywhere(Role.OPERATOR)
        with self._ledger.write() as tx:
            for delivery_id in ids:
                if not deliveries.retry(tx, delivery_id, self._clock.now(), caller.name):
                    raise _no_delivery(delivery_id)
        self._changed()
        return list(ids)

    def discard(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Give messages up and return their ids; raises as `retry` does."""
        caller.check_everywhere(Role.OPERATOR)
        with self._ledger.write() as tx:
            for delivery_id in ids:
                if not deliveries.discard(tx, delivery_id, self._clock.now(), caller.name):
                    raise _no_delivery(delivery_id)
        self._changed()
        return list(ids)


def _no_delivery(delivery_id: str) -> NotFoundError:
    return NotFoundError(f"no pending or parked message has the id '{delivery_id}'")
