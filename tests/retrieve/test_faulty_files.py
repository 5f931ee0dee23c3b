"""A DICOMweb server that misbehaves where it sends files."""

import gzip
import struct

import psutil
import pytest

from dicom_adapter.errors import UnavailableError
from dicom_adapter.retrieve import dicomweb
from tests.receive.conftest import log
from tests.retrieve.conftest import Cache
from tests.retrieve.faulty import REFUSED, STUDY, at_once, secret_study, told
from tests.retrieve.faulty_web import (
    BOUNDARY,
    MULTIPART,
    Asked,
    Sends,
    Web,
    cache,
    chunked,
    file_of,
    parts,
    web,
)

__all__ = ["at_once", "cache", "log", "web"]


GOOD = [
    pytest.param(lambda a, files: a.say(parts(*files), MULTIPART), id="as it should be"),
    pytest.param(
        lambda a, files: a.say(parts(*files), MULTIPART.replace(BOUNDARY, f'"{BOUNDARY}"')),
        id="quoted boundary",
    ),
    pytest.param(
        lambda a, files: a.say(
            chunked(*(parts(*files)[at : at + 777] for at in range(0, len(parts(*files)), 777)))
            + b"0\r\n\r\n",
            MULTIPART,
            content_length="",
            transfer_encoding="chunked",
        ),
        id="chunked",
    ),
    pytest.param(
        lambda a, files: a.say(gzip.compress(parts(*files)), MULTIPART, content_encoding="gzip"),
        id="gzip",
    ),
    pytest.param(
        lambda a, files: a.say(
            parts(*files, b"no DICOM file", files[0][:-50], b"", file_with_meta(2**32 - 1)),
            MULTIPART,
        ),
        id="bad among good",
    ),
    pytest.param(lambda a, files: a.say(b"\r\n" + parts(*files), MULTIPART), id="empty line first"),
]


def file_with_meta(length: int) -> bytes:
    """Return a file whose meta information is said to be so long."""
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, length) + bytes(5000)


@pytest.mark.parametrize("how", GOOD)
def test_what_comes_whole_is_kept(cache: Cache, web: Web, how: Sends) -> None:
    """However it is written, and whatever comes beside it."""
    web.wado = lambda asked: how(asked, list(map(file_of, web.held)))
    assert cache.fetch("WEB", STUDY)[-1].fetched == len(cache.files()) == 3


def test_one_file_may_come_without_parts(cache: Cache, web: Web) -> None:
    """So some servers answer where one was asked for."""
    web.held = web.held[:1]
    web.wado = lambda asked: asked.say(file_of(web.held[0]), "application/dicom")
    assert cache.fetch("WEB", STUDY)[-1].fetched == 1


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/html", b"<p>Secret", "no DICOM files"),
        ("", b"", "no DICOM files"),
        ("multipart/related", parts(b""), "no DICOM files"),
        (MULTIPART, b"Secret", "no multipart message"),
    ],
)
def test_what_holds_no_files_is_told(
    cache: Cache, web: Web, kind: str, body: bytes, words: str
) -> None:
    """At once."""
    web.wado = lambda asked: asked.say(body, kind)
    with told(REFUSED, "WEB", words):
        cache.fetch("WEB", STUDY)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"Secret", "no DICOM file"),
        (file_with_meta(2**32 - 1), "file meta information"),
        (file_with_meta(16), "file meta information"),
        (
            bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 8) + b"\xff" * 99,
            "file meta",
        ),
        (file_of(secret_study()[0])[:-50], "data set"),
    ],
)
def test_a_bad_part_is_told_and_the_good_ones_are_kept(
    cache: Cache, web: Web, bad: bytes, words: str
) -> None:
    """What it is that cannot be taken, and how often."""
    good = [file_of(one) for one in web.held]
    web.wado = lambda asked: asked.say(parts(good[0], bad, good[2]), MULTIPART)
    with told(UnavailableError, "1 of 3 instances did not come from WEB", words, "(1x)"):
        cache.fetch("WEB", STUDY)
    assert len(cache.files()) == 2


@pytest.mark.parametrize("how", ["length", "chunked", "closed"])
def test_what_was_whole_is_kept_where_an_answer_breaks_off(
    cache: Cache, web: Web, how: str
) -> None:
    """And the next attempt asks for the rest alone."""

    def break_off(asked: Asked) -> None:
        web.wado = None
        asked.close_connection = True
        body = parts(*map(file_of, web.held))
        cut = body[: len(body) // 2]
        if how == "chunked":
            asked.say(chunked(cut), MULTIPART, content_length="", transfer_encoding="chunked")
        else:
            asked.say(cut, MULTIPART, content_length=str(len(body)) if how == "length" else "")

    web.wado = break_off
    assert cache.fetch("WEB", STUDY)[-1].fetched == 3
    files = [path for path, headers in web.asked if "multipart" in headers["Accept"]]
    assert [path.endswith(str(web.held[0].SOPInstanceUID)) for path in files] == [False] * 3


@pytest.mark.parametrize("kind", ["application/dicom", MULTIPART])
def test_rubbish_without_end_fills_no_memory(cache: Cache, web: Web, kind: str) -> None:
    """What is refused is not kept, and where nothing may follow it is not read either."""
    piece = bytes(2**20) if kind != MULTIPART else parts(bytes(2**20)).partition(b"--\r\n")[0]

    def endless(asked: Asked) -> None:
        web.poured = 0
        asked.pour(piece, kind, 100_000_000)

    web.wado = endless
    before = psutil.Process().memory_info().rss
    with told(UnavailableError, "3 of 3", "WEB", "no DICOM file"):
        cache.fetch("WEB", STUDY)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_a_server_that_stalls_is_told(
    cache: Cache, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for the rest."""
    monkeypatch.setattr(dicomweb, "READ_SECONDS", 0.3)
    body = parts(*map(file_of, web.held))

    def stall(asked: Asked) -> None:
        asked.say(body[:-5000], MULTIPART, content_length=str(len(body)))
        asked.rfile.read(1)

    web.wado = stall
    with told(UnavailableError, "WEB", "did not answer for 0.3 s"):
        cache.fetch("WEB", STUDY)
    assert len(cache.files()) == 2
