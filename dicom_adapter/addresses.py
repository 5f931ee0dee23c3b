"""Where a service is reached."""

import os
from dataclasses import dataclass
from pathlib import Path

from dicom_adapter.config import Settings
from dicom_adapter.errors import StartError

EMBEDDED = "embedded"
_SOCKET = Path("run", "grpc.sock")
# sockaddr_un holds 108 bytes, the last of them a zero.
_LONGEST_SOCKET_PATH = 107


def socket_address(settings: Settings) -> str:
    """Return the address of the Unix socket that the service of these settings serves."""
    return f"unix:{settings.storage.path / _SOCKET}"


def platform_address(settings: Settings) -> str:
    """Return where jobs are submitted to: the configured platform, or the service's own socket."""
    address = settings.platform.address
    return socket_address(settings) if address == EMBEDDED else address


def socket_path(settings: Settings) -> Path:
    """Return the Unix socket's path.

    Raises:
        StartError: no socket can have such a long one.
    """
    path = settings.storage.path / _SOCKET
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise StartError(
            f"{path}: too long for a Unix socket ({_LONGEST_SOCKET_PATH} bytes at most): "
            "choose a shorter storage.path"
        )
    return path


@dataclass(frozen=True)
class Ready:
    """Where the service listens, each as HOST:PORT, or unix:PATH where gRPC has no TCP port."""

    dicom: tuple[str, ...]
    grpc: tuple[str, ...]

    def __str__(self) -> str:
        parts = [("dicom", self.dicom), ("grpc", self.grpc)]
        return " ".join(["ready", *(f"{name}={','.join(at)}" for name, at in parts if at)])
