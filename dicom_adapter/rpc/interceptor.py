"""What every call to the server goes through: exceptions become statuses, streams are counted."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status

from dicom_adapter.errors import DicomAdapterError, UnavailableError, fingerprint
from dicom_adapter.rpc.context import Call, Callers
from dicom_adapter.rpc.status import to_status

#: The package that the API is in.
OURS = "/dicom_adapter.v1."

#: Gives what a method gets in the place of gRPC's context; raises where nobody is let in.
Admit: TypeAlias = Callable[[grpc.ServicerContext], Any]

log = structlog.get_logger()


class Entrance(grpc.ServerInterceptor):
    """Lets in who is known, and answers a call that raised one of our exceptions with its status.

    A method is given a `Call` in the place of gRPC's context.

    At most `streams` calls that stream, whichever way, are served at a time: one that stalls holds
    a thread for as long as its caller pleases.
    """

    def __init__(self, callers: Callers, streams: int) -> None:
        self._callers = callers
        self._streams = _Places(streams)

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the method that a call is for."""
        found = continuation(handler_call_details)
        if found is None:
            return None
        # Health and reflection are gRPC's own, and tell nobody anything of ours.
        is_ours = handler_call_details.method.startswith(OURS)
        admit = self._admit if is_ours else _as_it_is
        handler: Any = found
        make: Any
        if handler.request_streaming and handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
            call: Any = _stream(handler.stream_stream, admit, self._streams)
        elif handler.response_streaming:
            make = grpc.unary_stream_rpc_method_handler
            call = _stream(handler.unary_stream, admit, self._streams)
        elif handler.request_streaming:
            make = grpc.stream_unary_rpc_method_handler
            call = _unary(handler.stream_unary, admit, self._streams)
        else:
            make = grpc.unary_unary_rpc_method_handler
            call = _unary(handler.unary_unary, admit, nullcontext())
        made: grpc.RpcMethodHandler[Any, Any] = make(
            call, handler.request_deserializer, handler.response_serializer
        )
        return made

    def _admit(self, context: grpc.ServicerContext) -> Call:
        return Call(self._callers.of(context), context.is_active, context.add_callback)


def _as_it_is(context: grpc.ServicerContext) -> grpc.ServicerContext:
    return context


def _unary(
    method: Callable[[Any, Any], Any], admit: Admit, place: AbstractContextManager[object]
) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - messages of every kind
        with _answering(context):
            call = admit(context)
            with place:
                return method(request, call)

    return answer


def _stream(
    method: Callable[[Any, Any], Iterable[Any]],
    admit: Admit,
    place: AbstractContextManager[object],
) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - messages of every kind
        with _answering(context):
            call = admit(context)
            with place:
                yield from method(request, call)

    return answer


class _Places:
    """So many calls at a time; one more is refused, not kept waiting."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise UnavailableError("too many calls that stream at a time: try again later")

    def __exit__(self, *_: object) -> None:
        self._free.release()


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except DicomAdapterError as error:
        status = to_status(error)
    except grpc.RpcError:
        # The caller broke off while it streamed: no fault of ours, and nobody hears the answer.
        status = to_status(UnavailableError("the call broke off"))
    except Exception as error:  # noqa: BLE001 - the last guard: gRPC would send and print its text
        # Which may quote patient data: the log line tells type and place, the caller nothing.
        log.error(  # noqa: TRY400 - for the same reason
            "a call failed within the service", action="rpc.failed", **fingerprint(error)
        )
        status = to_status(DicomAdapterError("failed within the service: its log says where"))
    else:
        return
    context.abort_with_status(rpc_status.to_status(status))
