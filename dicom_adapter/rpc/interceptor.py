"""What every call to the server goes through: exceptions become statuses, streams are counted."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from dicom_adapter.errors import DicomAdapterError, UnavailableError, fingerprint
from dicom_adapter.rpc.status import to_status

Context = grpc.ServicerContext

log = structlog.get_logger()


class ErrorInterceptor(grpc.ServerInterceptor):
    """Answers a call that raised one of our exceptions with its status.

    At most `streams` calls that stream their answers are served at a time.
    """

    def __init__(self, streams: int) -> None:
        self._streams = threading.Semaphore(streams)

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the method that a call is for."""
        found = continuation(handler_call_details)
        if found is None:
            return None
        handler: Any = found
        if handler.request_streaming and handler.response_streaming:
            # Reflection's own: it raises none of ours.
            return found
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, self._streams),
                handler.request_deserializer,
                handler.response_serializer,
            )
        make, method = (
            (grpc.stream_unary_rpc_method_handler, handler.stream_unary)
            if handler.request_streaming
            else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
        )
        return make(_unary(method), handler.request_deserializer, handler.response_serializer)


def _unary(method: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
    def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - messages of every kind
        with _answering(context):
            return method(request, context)

    return call


def _stream(
    method: Callable[[Any, Context], Iterable[Any]], free: threading.Semaphore
) -> Callable[[Any, Context], Iterator[Any]]:
    def call(request: Any, context: Context) -> Iterator[Any]:  # noqa: ANN401 - messages of every kind
        with _answering(context):
            if not free.acquire(blocking=False):
                raise UnavailableError("too many watch or follow at a time: try again later")
            try:
                yield from method(request, context)
            finally:
                free.release()

    return call


@contextmanager
def _answering(context: Context) -> Iterator[None]:
    try:
        yield
    except DicomAdapterError as error:
        status = to_status(error)
    except Exception as error:  # noqa: BLE001 - the last guard: gRPC would send and print its text
        # Which may quote patient data: the log line tells type and place, the caller nothing.
        log.error(  # noqa: TRY400 - for the same reason
            "a call failed within the service", action="rpc.failed", **fingerprint(error)
        )
        status = to_status(DicomAdapterError("failed within the service: its log says where"))
    else:
        return
    context.abort_with_status(rpc_status.to_status(status))
