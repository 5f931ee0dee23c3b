"""Serves the platform as a whole: whether it starts jobs."""

from dicom_adapter.platform.pausing import PlatformControl
from dicom_adapter.rpc.context import Context, actor_of
from dicom_adapter.rpc.convert import to_platform
from dicom_adapter.v1 import platform_pb2, platform_pb2_grpc


class PlatformServicer(platform_pb2_grpc.PlatformServiceServicer):
    """Serves PlatformService."""

    def __init__(self, control: PlatformControl) -> None:
        self._control = control

    def GetPlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.GetPlatformRequest, context: Context
    ) -> platform_pb2.Platform:
        """Return whether jobs are started."""
        del request, context
        return to_platform(self._control.state())

    def PausePlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.PausePlatformRequest, context: Context
    ) -> platform_pb2.Platform:
        """Start no more jobs."""
        return to_platform(self._control.pause(actor=actor_of(context), why=request.reason))

    def ResumePlatform(  # noqa: N802 - the API's name
        self, request: platform_pb2.ResumePlatformRequest, context: Context
    ) -> platform_pb2.Platform:
        """Start jobs again."""
        return to_platform(self._control.resume(actor=actor_of(context), why=request.reason))
