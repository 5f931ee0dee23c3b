"""Serves the adapter itself: its state, its groups, and what waits for a decision."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from dicom_adapter.config import Change
from dicom_adapter.errors import ConfigError, InvalidArgumentError
from dicom_adapter.model import Caller, Disorder, ServiceStatus
from dicom_adapter.processor.operations import GroupOperations, QuarantineOperations
from dicom_adapter.rpc import convert_adapter
from dicom_adapter.rpc.context import Call
from dicom_adapter.submit.outbox import SubmissionOperations
from dicom_adapter.v1 import adapter_pb2, adapter_pb2_grpc


class Check(Protocol):
    """Compares the spool with the ledger."""

    def __call__(self, caller: Caller, *, scrub: bool) -> Iterator[Disorder]:
        """Mend what can be mended, and yield all that was found."""
        ...


@dataclass(frozen=True)
class AdapterOperations:
    """What an adapter answers with."""

    status: Callable[[Caller], ServiceStatus]
    reload: Callable[[Caller], tuple[Change, ...]]
    check: Check
    groups: GroupOperations
    submissions: SubmissionOperations
    quarantine: QuarantineOperations


class AdapterServicer(adapter_pb2_grpc.AdapterServiceServicer):
    """Serves AdapterService."""

    def __init__(self, operations: AdapterOperations) -> None:
        self._operations = operations

    def GetStatus(  # noqa: N802 - the API's name
        self, request: adapter_pb2.GetStatusRequest, call: Call
    ) -> adapter_pb2.Status:
        """Return what runs and what needs a person."""
        del request
        return convert_adapter.to_service_status(self._operations.status(call.caller))

    def Reload(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ReloadRequest, call: Call
    ) -> adapter_pb2.ReloadResponse:
        """Go by the configuration as it is now."""
        del request
        try:
            changes = self._operations.reload(call.caller)
        except ConfigError as error:
            # In the answer: details of a status go by HTTP trailers, which hold but 8 KiB.
            return adapter_pb2.ReloadResponse(
                mistakes=map(convert_adapter.to_mistake, error.mistakes)
            )
        return adapter_pb2.ReloadResponse(changes=map(convert_adapter.to_change, changes))

    def CheckStorage(  # noqa: N802 - the API's name
        self, request: adapter_pb2.CheckStorageRequest, call: Call
    ) -> Iterator[adapter_pb2.Disorder]:
        """Compare the spool with the ledger, and tell what does not agree."""
        for disorder in self._operations.check(call.caller, scrub=request.scrub):
            yield convert_adapter.to_disorder(disorder)

    def ListGroups(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ListGroupsRequest, call: Call
    ) -> adapter_pb2.ListGroupsResponse:
        """Return open and parked groups."""
        del request
        groups = self._operations.groups.listed(call.caller)
        return adapter_pb2.ListGroupsResponse(groups=map(convert_adapter.to_group, groups))

    def CompleteGroups(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Make groups due now."""
        return chosen(self._operations.groups.complete, request, call)

    def DiscardGroups(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Drop groups."""
        return chosen(self._operations.groups.discard, request, call)

    def ListSubmissions(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ListSubmissionsRequest, call: Call
    ) -> adapter_pb2.ListSubmissionsResponse:
        """Return unsettled submissions."""
        del request
        submissions = self._operations.submissions.listed(call.caller)
        return adapter_pb2.ListSubmissionsResponse(
            submissions=map(convert_adapter.to_submission, submissions)
        )

    def RetrySubmissions(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Try submissions again now."""
        return chosen(self._operations.submissions.retry, request, call)

    def DiscardSubmissions(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Give submissions up."""
        return chosen(self._operations.submissions.discard, request, call)

    def ListQuarantine(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ListQuarantineRequest, call: Call
    ) -> adapter_pb2.ListQuarantineResponse:
        """Return what no group could take."""
        del request
        found = self._operations.quarantine.listed(call.caller)
        return adapter_pb2.ListQuarantineResponse(
            instances=map(convert_adapter.to_quarantined, found)
        )

    def RetryQuarantine(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Hand instances to their processors again."""
        return chosen(self._operations.quarantine.retry, request, call)

    def DiscardQuarantine(  # noqa: N802 - the API's name
        self, request: adapter_pb2.ChosenRequest, call: Call
    ) -> adapter_pb2.ChosenResponse:
        """Let the reclaimer have instances."""
        return chosen(self._operations.quarantine.discard, request, call)


def chosen(
    decide: Callable[[Caller, list[str]], list[str]],
    request: adapter_pb2.ChosenRequest,
    call: Call,
) -> adapter_pb2.ChosenResponse:
    """Have things decided that a request names by their ids."""
    if not request.ids:
        raise InvalidArgumentError("ids", "must not be empty")
    return adapter_pb2.ChosenResponse(ids=decide(call.caller, list(request.ids)))
