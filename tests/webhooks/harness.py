"""A receiver of webhooks as anybody could write it, and an outbox over a ledger of jobs."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dicom_adapter.config import SigningKeys, Webhook
from dicom_adapter.ledger import Ledger, control
from dicom_adapter.model import LOCAL, Delivery, DeliveryState, Job
from dicom_adapter.webhooks.operations import WebhookOperations
from dicom_adapter.webhooks.outbox import WebhookOutbox
from tests.ledger import make
from tests.support import PATIENCE, ManualClock

KEY = b"the receiver has this key too, 40 bytes."
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@dataclass(frozen=True)
class Got:
    """A message as it came."""

    headers: Mapping[str, str]
    raw: bytes

    @property
    def id(self) -> str:
        """What doubles are known by."""
        return self.headers["webhook-id"]

    @property
    def body(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads(self.raw))

    def is_signed_by(self, key: bytes) -> bool:
        """Tell whether one of its signatures is by a key."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.raw
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


@dataclass(frozen=True)
class Reply:
    """How a message is answered."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Instead of all that: these very bytes.
    raw: bytes | None = None
    #: The answer comes no earlier.
    after: threading.Event | None = None
    #: A byte of the answer comes as often as this says, for ever.
    drip: float = 0.0
    #: The body goes on until nobody takes it any more.
    is_endless: bool = False


class Receiver(ThreadingHTTPServer):
    """Takes messages, and answers each with the next of its replies, or 204."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.replies: list[Reply] = []
        self.got: list[Got] = []
        self.closing = threading.Event()
        self.cut_off = threading.Event()
        self._changed = threading.Condition()
        self._scheme = "https" if tls else "http"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = "localhost" if self._scheme == "https" else "127.0.0.1"
        return f"{self._scheme}://{host}:{self.server_port}/hook?token=hidden"

    def take(self, got: Got) -> Reply:
        """Note a message and return how to answer it."""
        with self._changed:
            self.got.append(got)
            self._changed.notify_all()
            return self.replies.pop(0) if self.replies else Reply()

    def wait_for(self, count: int) -> list[Got]:
        """Wait for so many messages and return all there are."""
        with self._changed:
            come = self._changed.wait_for(lambda: len(self.got) >= count, PATIENCE)
            assert come, f"{len(self.got)} of {count} messages have come"
            return list(self.got)

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hangs up on it is no reason for a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.server.take(Got(dict(self.headers), raw))
        if reply.after is not None:
            reply.after.wait(PATIENCE)
        if reply.raw is not None:
            self.wfile.write(reply.raw)
        elif reply.drip:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.closing.wait(reply.drip):
                self.wfile.write(b"x")
        else:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
            self._go_on(reply)

    def _go_on(self, reply: Reply) -> None:
        try:
            while reply.is_endless:
                self.wfile.write(b"x" * 65_536)
        except OSError:
            self.server.cut_off.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver until the block ends."""
    receiver = Receiver(port, tls)
    thread = threading.Thread(target=lambda: receiver.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        receiver.shutdown()
        receiver.server_close()
        thread.join(PATIENCE)


def webhook(url: str, **values: Any) -> Webhook:  # noqa: ANN401 - a Webhook's fields
    """Return the settings of a webhook."""
    return Webhook(**{"url": url, "secret": SigningKeys(Path("keys"), (KEY,)), **values})


class Telling:
    """An outbox of webhooks over a ledger, and jobs that move."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.open()
        self.outbox = WebhookOutbox(self.ledger, self.clock)
        self.operations = WebhookOperations(self.ledger, self.clock, self.outbox.wake)

    def cancelled(self, count: int = 1, **values: Any) -> list[Job]:  # noqa: ANN401 - a job's fields
        """Make jobs and cancel them: the shortest way to an end."""
        made = []
        for _ in range(count):
            with self.ledger.write() as tx:
                job = make.add_job(tx, **values)
                why = "the patient is called DOE^JOHN"
                control.cancel(tx, job.id, at=self.clock.now(), actor="ann", why=why)
            made.append(job)
        return made

    def listed(self, *states: str) -> list[Delivery]:
        """Return the deliveries in these states, the oldest first."""
        return list(self.operations.listed(LOCAL, states, "", 1000, "").deliveries[::-1])

    def until(self, state: DeliveryState, count: int = 1) -> list[Delivery]:
        """Wait until so many deliveries are in a state, and return them."""

        def look() -> list[Delivery]:
            found = self.listed(state)
            return found if len(found) >= count else []

        return self.ledger.wait_for(look, PATIENCE)

    def tried(self, attempts: int) -> Delivery:
        """Wait until the oldest delivery was tried so often, and waits again; return it."""

        def look() -> Delivery | None:
            found = self.listed(DeliveryState.PENDING)
            return found[0] if found and found[0].attempts >= attempts else None

        delivery = self.ledger.wait_for(look, PATIENCE)
        assert delivery is not None
        return delivery


@contextmanager
def unseen(folder: Path) -> Iterator[Telling]:
    """Let jobs move while no outbox runs."""
    made = Telling(folder)
    try:
        yield made
    finally:
        made.ledger.close()


@contextmanager
def telling(folder: Path, webhooks: Mapping[str, Webhook]) -> Iterator[Telling]:
    """Run an outbox until the block ends."""
    made = Telling(folder)
    made.outbox.start(webhooks)
    try:
        yield made
    finally:
        made.outbox.stop(PATIENCE)
        made.ledger.close()
