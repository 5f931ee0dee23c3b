"""Serves what webhooks are told."""

from dicom_adapter.model import Delivery
from dicom_adapter.rpc.adapter import chosen
from dicom_adapter.rpc.context import Call
from dicom_adapter.rpc.convert import to_timestamp
from dicom_adapter.v1 import adapter_pb2, webhooks_pb2, webhooks_pb2_grpc
from dicom_adapter.webhooks.operations import WebhookOperations


class WebhookServicer(webhooks_pb2_grpc.WebhookServiceServicer):
    """Serves WebhookService."""

    def __init__(self, operations: WebhookOperations) -> None:
        self._operations = operations

    def ListDeliveries(  # noqa: N802 - the API's name
        self, request: webhooks_pb2.ListDeliveriesRequest, call: Call
    ) -> webhooks_pb2.ListDeliveriesResponse:
        """Return a page of deliveries."""
        page = self._operations.listed(
            call.caller, request.states, request.webhook, request.page_size, request.page_token
        )
        return webhooks_pb2.ListDeliveriesResponse(
            deliveries=map(to_delivery, page.deliveries), next_page_token=page.next_token
        )

    def RetryDeliveries(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Send messages again now."""
        return chosen(self._operations.retry, request, call)

    def DiscardDeliveries(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Give messages up."""
        return chosen(self._operations.discard, request, call)


def to_delivery(delivery: Delivery) -> webhooks_pb2.Delivery:
    """Return a delivery as the API's."""
    return webhooks_pb2.Delivery(
        id=delivery.id,
        webhook=delivery.webhook,
        type=delivery.type,
        event=delivery.event,
        job_id=delivery.job_id,
        job=delivery.job,
        state=delivery.state,
        attempts=delivery.attempts,
        created_at=to_timestamp(delivery.created_at),
        ready_at=to_timestamp(delivery.ready_at),
        settled_at=to_timestamp(delivery.settled_at),
        status=delivery.status,
        error=delivery.error,
    )
