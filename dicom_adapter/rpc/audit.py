"""Serves the audit trail."""

import platform
from collections.abc import Iterator

from dicom_adapter.audit import AuditTrail, Period
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.context import Call
from dicom_adapter.v1 import audit_pb2, audit_pb2_grpc


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Serves AuditService."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._source = f"dicom-adapter@{platform.node()}"

    def ExportEvents(  # noqa: N802 - the API's name
        self, request: audit_pb2.ExportEventsRequest, call: Call
    ) -> Iterator[audit_pb2.ExportEventsResponse]:
        """Stream the audit trail in pages."""
        if request.after < 0:
            raise InvalidArgumentError("after", "must not be negative")
        period = Period(
            since=convert.from_timestamp(request.since) if request.HasField("since") else None,
            until=convert.from_timestamp(request.until) if request.HasField("until") else None,
        )
        for page in self._trail.pages(call.caller, request.after, period):
            yield audit_pb2.ExportEventsResponse(
                source=self._source, events=map(convert.to_audit_event, page)
            )
