"""Our exceptions as gRPC statuses and back: one table, used at both ends."""

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dicom_adapter.errors import (
    AlreadyExistsError,
    ConfigError,
    DicomAdapterError,
    FullError,
    InvalidArgumentError,
    NoPictureError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
    UnauthenticatedError,
    UnavailableError,
    WrongStateError,
)

_CODES: tuple[tuple[type[DicomAdapterError], int], ...] = (
    (InvalidArgumentError, code_pb2.INVALID_ARGUMENT),
    (ConfigError, code_pb2.INVALID_ARGUMENT),
    (NotFoundError, code_pb2.NOT_FOUND),
    (AlreadyExistsError, code_pb2.ALREADY_EXISTS),
    (UnauthenticatedError, code_pb2.UNAUTHENTICATED),
    (PermissionDeniedError, code_pb2.PERMISSION_DENIED),
    (WrongStateError, code_pb2.FAILED_PRECONDITION),
    (NoPictureError, code_pb2.FAILED_PRECONDITION),
    (SourceError, code_pb2.FAILED_PRECONDITION),
    (FullError, code_pb2.RESOURCE_EXHAUSTED),
    (UnavailableError, code_pb2.UNAVAILABLE),
)

# A message goes up to three times into the headers of an answer, which clients limit to 8 KiB.
_LONGEST_MESSAGE = 2000

#: The same request may succeed later, unchanged.
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


def to_status(error: DicomAdapterError) -> status_pb2.Status:
    """Return an exception as a status; its details name the field where one is wrong."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    status = status_pb2.Status(code=code, message=_cut(str(error)))
    if isinstance(error, InvalidArgumentError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=_cut(error.problem)
        )
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        status.details.append(detail)
    return status


def _cut(text: str) -> str:
    told = text.encode(errors="replace")
    if len(told) <= _LONGEST_MESSAGE:
        return text
    return told[: _LONGEST_MESSAGE - 3].decode(errors="ignore") + "..."


def from_error(error: grpc.RpcError, address: str) -> DicomAdapterError:
    """Return the exception that a failed call stands for."""
    code, message = error.code(), error.details() or ""
    if code in PASSING:
        # What a server of ours says of something else, a source that is down, is not about itself.
        is_said = rpc_status.from_call(error) is not None
        return UnavailableError(message if is_said else f"{address}: {message} ({code.name})")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid_argument(error, message)
    for kind, number in _CODES:
        if code.value[0] == number and kind is not InvalidArgumentError:
            return kind(message)
    return DicomAdapterError(f"{address}: {message} ({code.name})")


def _invalid_argument(error: grpc.RpcError, message: str) -> InvalidArgumentError:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request) and request.field_violations:
            violation = request.field_violations[0]
            return InvalidArgumentError(violation.field, violation.description)
    return InvalidArgumentError("request", message)
