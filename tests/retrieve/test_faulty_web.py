"""A DICOMweb server that misbehaves where it is asked, or is none."""

import base64
import json
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.retrieve import fetching, queries
from tests.certificates import SERVER, Authority
from tests.receive.conftest import log
from tests.receive.support import Log
from tests.retrieve.conftest import Cache, Ports, Runs
from tests.retrieve.faulty import (
    REFUSED,
    SOON,
    STUDY,
    at_once,
    calling,
    secret_study,
    told,
    until,
)
from tests.retrieve.faulty_web import (
    CONFIG,
    Answers,
    Asked,
    Web,
    cache,
    json_of,
    serving,
    web,
)

__all__ = ["at_once", "cache", "log", "web"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (401, REFUSED, "check user and password"),
        (403, REFUSED, "may not do this"),
        (404, REFUSED, "check the url"),
        (406, REFUSED, "in their own transfer syntax"),
        (302, REFUSED, "points elsewhere"),
        (418, REFUSED, "refuses the question"),
        (503, UnavailableError, "try again later"),
    ],
)
def test_a_refusal_is_told_with_what_may_help(
    cache: Cache, web: Web, code: int, kind: type[DicomAdapterError], words: str
) -> None:
    """By its status, without the question."""
    web.qido = lambda asked: asked.say(b"Secret", "text/plain", code, location="http://x/Secret")
    with told(kind, "WEB", str(code), words):
        cache.find("WEB", PatientName="Secret*")


def test_a_server_that_is_busy_is_asked_again(cache: Cache, web: Web) -> None:
    """What it cannot do now it can a moment later."""
    codes = [500, 503]

    def busy(asked: Asked) -> None:
        web.wado = busy if len(codes) > 1 else None
        asked.say(b"", code=codes.pop(0))

    web.wado = busy
    assert cache.fetch("WEB", STUDY)[-1].fetched == 3


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Secret",
        b"{}",
        b'{"a": 1}',
        b"null",
        b"[1, 2]",
        b'["Secret"]',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_dicom_json_is_told(cache: Cache, web: Web, body: bytes) -> None:
    """And what it was is not quoted."""
    web.qido = lambda asked: asked.say(body, "application/dicom+json")
    with told(REFUSED, "WEB", "no DICOM JSON"):
        cache.find("WEB", PatientID="1")


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"0020000D": {"vr": "UI"}},
        {"0020000D": {"vr": "UI", "Value": []}},
        {"0020000D": {"vr": "UI", "Value": ["1.2", "1.3"]}},
        {"0020000D": {"vr": "UI", "Value": ["Secret"]}},
        {"0020000D": {"vr": "PN", "Value": [{"Alphabetic": "Secret"}]}},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_uid_is_passed_over(cache: Cache, web: Web, found: dict[str, object]) -> None:
    """The rest is found."""
    web.qido = lambda asked: asked.say(json.dumps([found, *web.found(asked)]).encode())
    (one,) = cache.find("WEB", PatientID="1")
    assert one.study_instance_uid == STUDY


def test_no_content_is_nothing_found(cache: Cache, web: Web) -> None:
    """So servers say it too."""
    web.qido = lambda asked: asked.say(b"", code=204, content_length="")
    assert not cache.find("WEB", PatientID="1")


@pytest.mark.parametrize("most", [2, None])
def test_pages_of_any_size_are_read(cache: Cache, web: Web, most: int | None) -> None:
    """Those of two, and those of a server that gives all of it each time."""
    web.held = secret_study(each=7)
    if most is None:
        web.qido = lambda asked: asked.say(json.dumps(web.found(asked)).encode())
    else:
        web.qido = lambda asked: web.page(asked, most)
    assert cache.fetch("WEB", STUDY)[-1].fetched == 7
    assert len(web.asked) < 12


def test_answers_without_end_are_broken_off(
    cache: Cache, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of ever other studies, and a page that does not end."""
    monkeypatch.setattr(queries, "MOST_ANSWERS", 50)

    def endless(asked: Asked) -> None:
        one = json_of(web.held[0])
        one["0020000D"]["Value"] = [f"1.2.{len(web.asked)}"]
        asked.say(json.dumps([one]).encode())

    web.qido = endless
    with told(REFUSED, "WEB", "more than 50"):
        cache.find("WEB", PatientID="1")
    web.qido = lambda asked: asked.pour(b" " * 2**20, "application/json")
    with told(REFUSED, "WEB", "too long"):
        cache.find("WEB", PatientID="1")
    assert web.poured < 100_000_000


def test_where_nobody_listens_it_is_told_what_to_check(cache: Cache) -> None:
    """By the name of the source."""
    with told(UnavailableError, "WEB", "check url, port and firewall"):
        cache.fetch("WEB", STUDY)


def _silent(asked: Asked) -> None:
    asked.rfile.read(1)


def _stalled(asked: Asked) -> None:
    asked.say(b"[", content_length="1000")
    asked.rfile.read(1)


@pytest.mark.parametrize("how", [_silent, _stalled])
def test_who_cancels_has_the_connection_end(cache: Cache, web: Web, how: Answers) -> None:
    """Within moments, also where nothing was answered, and the place is another's."""
    web.qido = how
    with ExitStack() as calls:
        made = [calls.enter_context(calling(cache, "WEB")) for _ in range(fetching.MOST_AT_A_TIME)]
        until(lambda: len(web.asked) == len(made))
        began = time.monotonic()
    assert time.monotonic() - began < SOON
    web.qido = None
    until(lambda: _fetched(cache) == 3, SOON)


def _fetched(cache: Cache) -> int:
    try:
        return cache.fetch("WEB", STUDY)[-1].fetched
    except UnavailableError:
        return -1


@pytest.mark.parametrize("how", ["silent", "TLS"])
def test_the_service_stops_while_it_waits_for_a_silent_server(
    cache_at: Runs, ports: Ports, how: str
) -> None:
    """Also in the middle of a TLS handshake."""
    text = CONFIG.format(ports, "")
    if how == "TLS":
        text = text.replace("http:", "https:")
    with ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", ports.http)))
        with cache_at(text) as cache:
            open_.enter_context(calling(cache, "WEB"))
            connection, _ = listener.accept()
            open_.enter_context(connection)
            assert connection.recv(1)
            before = threading.active_count()
            began = time.monotonic()
        assert time.monotonic() - began < SOON
        until(lambda: threading.active_count() < before, SOON)


def test_certificates_are_checked(cache_at: Runs, ports: Ports, tmp_path: Path) -> None:
    """One that nobody vouches for is told as such; with `ca` it is trusted."""
    authority = Authority(tmp_path)
    authority.issue("server", usage=(SERVER,), dns=["localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    text = CONFIG.replace("http://127.0.0.1", "https://localhost")
    with serving(ports.http, context):
        with (
            cache_at(text.format(ports, "")) as cache,
            told(UnavailableError, "WEB", "certificate is not trusted"),
        ):
            cache.fetch("WEB", STUDY)
        with cache_at(text.format(ports, f", ca: {authority.path}")) as cache:
            assert cache.fetch("WEB", STUDY)[-1].fetched == 3


@pytest.mark.parametrize("by", ["password", "token"])
def test_who_we_are_is_told_to_the_server_alone(
    cache_at: Runs, ports: Ports, web: Web, log: Log, *, tmp_path: Path, by: str
) -> None:
    """It is in no error, and in no log."""
    secret = "Secret-word-of-some-length-0123456789"  # noqa: S105 - of this test alone
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "secret").chmod(0o600)
    keys = f", {by}: {tmp_path / 'secret'}" + (", user: someone" if by == "password" else "")
    with cache_at(CONFIG.format(ports, keys)) as cache:
        assert cache.fetch("WEB", STUDY)[-1].fetched == 3
        web.qido = lambda asked: asked.say(b"", code=401)
        with told(REFUSED, "WEB", "401", "check user and password, or token"):
            cache.fetch("WEB", STUDY)
    pair = base64.b64encode(f"someone:{secret}".encode()).decode()
    expected = f"Basic {pair}" if by == "password" else f"Bearer {secret}"
    assert {headers["Authorization"] for _, headers in web.asked} == {expected}
    assert "Secret" not in log.text
    assert pair not in log.text
