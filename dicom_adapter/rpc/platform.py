"""Serves the platform as a whole: whether it starts jobs."""

from dicom_adapter.platform.pausing import PlatformControl
from dicom_adapter.rpc.context import Call
from dicom_adapter.rpc.convert import to_platform
from dicom_adapter.v1 import platform_pb2, platform_pb2_grpc


class PlatformServicer(platform_pb2_grpc.PlatformServiceServicer):
    """Serves PlatformService."""

    def __init__(self, control: PlatformControl) -> None:
        self._control = control

    def GetPlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.GetPlatformRequest, call: Call
    ) -> platform_pb2.Platform:
        """Return whether jobs are started."""
        del request
        return to_platform(self._control.state(call.caller))

    def PausePlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.PausePlatformRequest, call: Call
    ) -> platform_pb2.Platform:
        """Start no more jobs."""
        return to_platform(self._control.pause(call.caller, why=request.reason))

    def ResumePlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.ResumePlatformRequest, call: Call
    ) -> platform_pb2.Platform:
        """Start jobs again."""
        return to_platform(self._control.resume(call.caller, why=request.reason))
