"""A DICOMweb server that misbehaves as it is told."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import Dataset

from tests.receive.support import Log
from tests.retrieve.conftest import Cache, Ports, Runs
from tests.retrieve.faulty import (
    SOON,
    STUDY,
    UIDS,
    secret_study,
    until,
)

BOUNDARY = "the=boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
CONFIG = """
dicom: {{host: 127.0.0.1, port: {0.adapter}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
ae_titles:
  CACHE: {{processor: cache}}
sources:
  WEB: {{url: "http://127.0.0.1:{0.http}/web"{1}}}
"""

Answers = Callable[["Asked"], None]
Sends = Callable[["Asked", list[bytes]], None]


class Asked(BaseHTTPRequestHandler):
    """One question, and what it is answered with."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self.server.web.asked.append((self.path, dict(self.headers)))
        self.server.web.answer(self)

    @property
    def is_for_files(self) -> bool:
        """Tell whether files are wanted."""
        return "multipart" in self.headers["Accept"]

    def say(self, body: bytes, kind: str = "", code: int = 200, **headers: str) -> None:
        """Answer with a body; `content_length=...` sets a header."""
        self.send_response(code)
        if kind:
            self.send_header("Content-Type", kind)
        for name, text in {"content_length": str(len(body)), **headers}.items():
            if text:
                self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def pour(self, piece: bytes, kind: str, most: int = 200_000_000) -> None:
        """Answer without end, as far as the other side reads."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        try:
            while self.server.web.poured < most:
                self.wfile.write(piece)
                self.server.web.poured += len(piece)
        except OSError:
            pass


class Server(ThreadingHTTPServer):
    """A server of `Web`."""

    daemon_threads = True
    web: "Web"

    def handle_error(self, *_: object) -> None:
        """Say nothing: those who ask go away."""


@dataclass
class Web:
    """A DICOMweb server that does as it is told; untold, it does well."""

    held: list[Dataset] = field(default_factory=secret_study)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    qido: Answers | None = None
    wado: Answers | None = None
    poured: int = 0

    def answer(self, asked: Asked) -> None:
        """Answer a question."""
        if asked.is_for_files:
            (self.wado or self.well_sent)(asked)
        else:
            (self.qido or self.well_found)(asked)

    def found(self, asked: Asked) -> list[Any]:
        """Return all that matches, as JSON has it."""
        level = {"studies": "STUDY", "series": "SERIES", "instances": "IMAGE"}
        key = UIDS[level[urlsplit(asked.path).path.rsplit("/", 1)[1]]]
        each = {str(one[key].value): one for one in self.held}
        return [json_of(one) for one in each.values()]

    def well_found(self, asked: Asked) -> None:
        """Answer as a good server does."""
        self.page(asked, 1000)

    def page(self, asked: Asked, most: int) -> None:
        """Answer with a page of at most so many."""
        offset = int(parse_qs(urlsplit(asked.path).query)["offset"][0])
        asked.say(
            json.dumps(self.found(asked)[offset : offset + most]).encode(), "application/json"
        )

    def well_sent(self, asked: Asked) -> None:
        """Send what is asked for."""
        wanted = [one for one in self.held if _named(asked, one)]
        asked.say(parts(*map(file_of, wanted)), MULTIPART)


def _named(asked: Asked, one: Dataset) -> bool:
    _, _, uid = asked.path.partition("/instances/")
    return not uid or uid == one.SOPInstanceUID


def json_of(one: Dataset) -> Any:  # noqa: ANN401 - JSON
    """Return what an answer says of an instance."""
    told_of = Dataset()
    for key in (*UIDS.values(), "SOPClassUID", "PatientName", "PatientID", "Modality"):
        setattr(told_of, key, one[key].value)
    return told_of.to_json_dict()


def file_of(one: Dataset) -> bytes:
    """Return an instance as a file."""
    content = BytesIO()
    one.save_as(content, enforce_file_format=True)
    return content.getvalue()


def parts(*files: bytes, boundary: str = BOUNDARY) -> bytes:
    """Return files as a multipart message."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + one + b"\r\n" for one in files) + f"--{boundary}--\r\n".encode()


def chunked(*pieces: bytes) -> bytes:
    """Return pieces as chunks, without their end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@contextmanager
def serving(port: int, context: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Have a server listen."""
    server = Server(("127.0.0.1", port), Asked)
    server.web = Web()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(ports: Ports) -> Iterator[Web]:
    """A listening server."""
    with serving(ports.http) as found:
        yield found


@pytest.fixture
def cache(cache_at: Runs, ports: Ports, log: Log) -> Iterator[Cache]:
    """A running cache, of whose work nothing that identifies a patient is logged."""
    with cache_at(CONFIG.format(ports, "")) as found:
        yield found
        until(lambda: not found.parts(), SOON)
    assert "Secret" not in log.text
    assert STUDY not in log.text
    assert not log.of("rpc.failed")
    assert not log.of("fetch.failed")
