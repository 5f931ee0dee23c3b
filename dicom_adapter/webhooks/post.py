"""Posts a message, and waits for the answer no longer than it may."""

import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore

from dicom_adapter.config import Webhook

# Of an answer's body nothing is needed. Its beginning is taken all the same: a receiver that is cut
# off in the middle of its answer may think that it has failed.
MOST_OF_BODY = 64 * 1024

Headers = Sequence[tuple[str, str]]
SocketOptions = Iterable[httpcore.SOCKET_OPTION] | None


@dataclass(frozen=True)
class Answer:
    """What came of an attempt."""

    #: The HTTP status; None where there was no answer.
    status: int | None
    #: How long the receiver wants to be left alone, if it says so.
    retry_after: timedelta | None = None
    #: Why there was no answer, in our own words.
    problem: str = ""


class Poster:
    """Posts to one receiver."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._host = urlsplit(webhook.url).netloc
        self._trusted: ssl.SSLContext | None = None
        if webhook.url.startswith("https:"):
            authorities = None if webhook.ca is None else webhook.ca.content
            self._trusted = ssl.create_default_context(cadata=authorities)

    def post(self, headers: Headers, body: str, now: datetime) -> Answer:
        """Post a message once; redirects are not followed."""
        ends_at = time.monotonic() + self._webhook.timeout
        try:
            return self._post([("Host", self._host), *headers], body.encode(), now, ends_at)
        except httpcore.TimeoutException:
            problem = f"no answer within {self._webhook.timeout:g} s"
        except httpcore.ConnectError as error:
            problem = f"no connection: {_why(error.__context__)}"
        except (httpcore.NetworkError, httpcore.RemoteProtocolError):
            problem = "it broke off, or what it answered is no HTTP"
        except (httpcore.LocalProtocolError, OSError, ValueError):
            problem = "its address cannot be used"
        return Answer(None, problem=problem)

    def _post(self, headers: Headers, body: bytes, now: datetime, ends_at: float) -> Answer:
        with (
            httpcore.ConnectionPool(
                ssl_context=self._trusted, network_backend=_Hurried(ends_at)
            ) as pool,
            pool.stream("POST", self._webhook.url, headers=headers, content=body) as response,
        ):
            with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                _take(response.iter_stream())
            return Answer(response.status, _retry_after(_header(response, b"retry-after"), now))


def _take(chunks: Iterable[bytes]) -> None:
    taken = 0
    for chunk in chunks:
        taken += len(chunk)
        if taken > MOST_OF_BODY:
            return


def _header(response: httpcore.Response, wanted: bytes) -> bytes:
    return next((value for name, value in response.headers if name.lower() == wanted), b"")


def _retry_after(given: bytes, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After asks for (RFC 9110 10.2.3): seconds, or a date."""
    text = given.decode("ascii", "replace").strip()
    if text.isdecimal():
        # More digits are no number of seconds that anybody means.
        return timedelta(seconds=int(text[:9]))
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(until - now, timedelta())


def _why(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({(error.reason or 'unknown reason').replace('_', ' ').lower()})"
    return (isinstance(error, OSError) and error.strerror) or "nobody answers there"


class _Hurried(httpcore.NetworkBackend):
    """Connections that end at a time, however slowly the other side sends: it is all one wait."""

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - httpcore's; ours is the time that is left
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.NetworkStream:
        """Connect."""
        left = _left(self._ends_at)
        stream = self._backend.connect_tcp(host, port, left, local_address, socket_options)
        return _HurriedStream(stream, self._ends_at)


class _HurriedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, ends_at: float) -> None:
        self._stream = stream
        self._ends_at = ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - as above
        """Read what comes."""
        return self._stream.read(max_bytes, _left(self._ends_at))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        """Write all of it."""
        self._stream.write(buffer, _left(self._ends_at))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        """Go over to TLS."""
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._ends_at))
        return _HurriedStream(stream, self._ends_at)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def get_extra_info(self, info: str) -> object:
        """Return what httpcore wants to know of the connection."""
        return self._stream.get_extra_info(info)


def _left(ends_at: float) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left
