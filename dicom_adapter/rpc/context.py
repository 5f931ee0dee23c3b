"""What a call says of its caller."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from dicom_adapter.access import Access
from dicom_adapter.errors import UnauthenticatedError
from dicom_adapter.model import LOCAL, Caller

BEARER = "bearer "


@dataclass(frozen=True)
class Call:
    """One call: who makes it, and whether an answer is still waited for."""

    caller: Caller
    is_active: Callable[[], bool]
    #: Has a function called once it is over, however it ends.
    when_over: Callable[[Callable[[], None]], object]


class Callers:
    """Tells who calls."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def of(self, context: grpc.ServicerContext) -> Caller:
        """Return who makes a call.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        # The socket lies in a folder that nobody but its owner can enter.
        if str(context.peer()).startswith("unix:"):
            return LOCAL
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                text = value if isinstance(value, str) else ""
                if text.lower().startswith(BEARER):
                    return self._access.caller_of(text[len(BEARER) :].strip())
        raise UnauthenticatedError(
            "a token is needed: send it as the metadata `authorization: Bearer TOKEN`; the command "
            "line takes it from DICOM_ADAPTER_TOKEN"
        )
