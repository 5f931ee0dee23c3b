"""A connection by TLS (PS3.15 section B.12), and the server's side that it is accepted with."""

import socket
import ssl
from contextlib import suppress

import structlog

from dicom_adapter.config import TlsSettings
from dicom_adapter.config.certificates import (
    CertificateError,
    server_context,
    verified_names,
    why_not,
)
from dicom_adapter.promptness import acknowledge_at_once
from dicom_adapter.receive.transport import HandshakeError

# The longest that one record holds (RFC 8446 section 5.1).
_RECORD = 2**14

log = structlog.get_logger()


def refreshed(tls: TlsSettings | None, before: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return the server's side of the files as they are now.

    They were good when the configuration was read. If they are not any more, what was before
    serves on; without that, nobody can be served by TLS.
    """
    if tls is None:
        return None
    try:
        return server_context(tls)
    except CertificateError as error:
        log.error("TLS goes on as before", action="tls.unusable", why=str(error))  # noqa: TRY400 - it says why
        return before


class Tls:
    """A TCP connection with TLS over it: the handshake is done by the first receptions."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Take over a connection that was accepted.

        Raises:
            OSError: it is gone already.
        """
        self.socket = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.wants_write = False
        self._is_open = False

    @property
    def certificate(self) -> frozenset[str]:
        """The names in the peer's certificate: none without one that was verified."""
        return verified_names(self.socket)

    def receive(self, buffer: memoryview) -> int | None:
        """Fill a buffer; return the count, 0 at the end, None when nothing is there now.

        Raises:
            HandshakeError: the peer is not one to talk with by TLS.
            OSError: the connection is gone, or what came is no TLS any more.
        """
        self.wants_write = False
        count = 0
        try:
            if not self._is_open:
                self._shake_hands()
            # A whole record each time: what OpenSSL kept back, no selector would tell of.
            while len(buffer) - count >= _RECORD:
                received = self.socket.recv_into(buffer[count:])
                count += received
                if not received:
                    return count
        except ssl.SSLWantReadError:
            return count or None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return count or None
        finally:
            acknowledge_at_once(self.socket)
        return count

    def send(self, data: memoryview) -> int:
        """Send what goes now; return how much that was."""
        try:
            return self.socket.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    def close(self) -> None:
        """Tell the peer that nothing was cut off (RFC 8446 section 6.1), and close."""
        with suppress(OSError, ValueError):
            self.socket.unwrap()
        self.socket.close()

    def _shake_hands(self) -> None:
        try:
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLEOFError as error:
            raise ConnectionResetError from error
        except ssl.SSLError as error:
            raise HandshakeError(why_not(error)) from error
        self._is_open = True
