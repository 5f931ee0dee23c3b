"""The ports that are listened on: opened once, and handed to whatever accepts on them."""

import socket
from collections.abc import Iterable, Mapping

from dicom_adapter.errors import StartError

_BACKLOG = 1024


class Ports:
    """Listening sockets, by the port of the configuration, which may be 0 for any."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._sockets: dict[int, socket.socket] = {}

    @property
    def sockets(self) -> Mapping[int, socket.socket]:
        """The sockets that are listened on now."""
        return dict(self._sockets)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The HOST:PORT of every port, the first configured one first."""
        return tuple(_address(*sock.getsockname()[:2]) for sock in self._sockets.values())

    def open(self, ports: Iterable[int]) -> None:
        """Listen on these ports, in this order; what is listened on already stays as it is.

        Others are kept until `close_others`, for whoever accepts on them is to let go first.

        Raises:
            StartError: a port is taken or may not be opened; then nothing has changed.
        """
        wanted = dict.fromkeys(ports)
        opened: dict[int, socket.socket] = {}
        try:
            for port in wanted.keys() - self._sockets:
                opened[port] = _listen(self._host, port)
        except StartError:
            for sock in opened.values():
                sock.close()
            raise
        known = self._sockets | opened
        self._sockets = {port: known[port] for port in (*wanted, *(known.keys() - wanted))}

    def close_others(self, ports: Iterable[int]) -> None:
        """Close what is not among these ports."""
        for port in self._sockets.keys() - set(ports):
            self._sockets.pop(port).close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was closed just now may be listened on again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - its only form
    except OSError as error:
        sock.close()
        raise StartError(
            f"cannot listen on {_address(host, port)}: {error.strerror}: stop what uses the "
            "port, or choose another (dicom.port, or the AE title's own port)"
        ) from error
    return sock


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
