"""Asks a DICOMweb server: QIDO-RS and WADO-RS (PS3.18 chapters 10.6 and 10.4)."""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import httpx
from pydicom import Dataset

from dicom_adapter.attributes import texts_of
from dicom_adapter.config import DicomwebSource
from dicom_adapter.errors import SourceError, UnavailableError
from dicom_adapter.receive.deposit import Deposit, Provenance
from dicom_adapter.retrieve.archive import (
    UIDS,
    Attributes,
    ElsewhereInstance,
    ElsewhereSeries,
    Level,
)
from dicom_adapter.retrieve.files import take_in

CONNECT_SECONDS = 10.0
#: The wait for the next bytes, in seconds.
READ_SECONDS = 60.0
# What one page of an answer has; a server may give less.
PAGE = 1000
_LONGEST_PAGE = 64 * 1024 * 1024
_JSON = "application/dicom+json"
_FILES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PARTS = {"StudyInstanceUID": "studies", "SeriesInstanceUID": "series"}
_ABOVE: Mapping[Level, Sequence[str]] = {
    Level.STUDY: (),
    Level.SERIES: ("StudyInstanceUID",),
    Level.IMAGE: ("StudyInstanceUID", "SeriesInstanceUID"),
}
_UNQUOTED = "*?,:/@!$'()"
_RESOURCES = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}
_CURES = {
    401: "check user and password, or token, of the source",
    403: "who we are there may not do this",
    404: "check the url of the source, and that it still has the study",
    406: "it has no files in their own transfer syntax to give",
}
_UNREACHED = "check url, port and firewall, and that the server runs"
# Another time they may be gone (RFC 9110 section 15.6, RFC 6585 section 4).
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class DicomwebArchive:
    """A DICOMweb server that is asked; see `Archive`."""

    def __init__(self, name: str, source: DicomwebSource) -> None:
        self.name = name
        self._url = source.url.rstrip("/")
        self._is_stopped = False
        self._connection: socket.socket | None = None
        headers = {}
        if source.token is not None:
            headers["Authorization"] = f"Bearer {source.token.secret}"
        auth = None
        if source.user is not None and source.password is not None:
            auth = httpx.BasicAuth(source.user, source.password.secret)
        authorities = None if source.ca is None else source.ca.content
        self._client = httpx.Client(
            auth=auth,
            headers=headers,
            verify=ssl.create_default_context(cadata=authorities),
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    @property
    def provenance(self) -> Provenance:
        """Where its instances come from."""
        return Provenance("", urlsplit(self._url).hostname or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """Have whoever waits for it wait no more."""
        self._is_stopped = True
        self._cut()

    def _cut(self) -> None:
        if self._is_stopped and self._connection is not None:
            with suppress(OSError):
                # Not TLS's own, which would take it away under whoever reads.
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def _trace(self, event: str, details: Mapping[str, Any]) -> None:
        # As soon as that: the server need not answer.
        if event == "connection.connect_tcp.complete":
            self._connection = details["return_value"].get_extra_info("socket")
            self._cut()

    def find(self, level: Level, keys: Attributes) -> Iterator[Attributes]:
        """Yield what matches, page by page; raises as `Archive.find` does."""
        path = _path({key: keys[key] for key in _ABOVE[level]}) + f"/{_RESOURCES[level]}"
        asked = {key: value for key, value in keys.items() if key not in _ABOVE[level]}
        query = [
            (key, value.replace("\\", ",")) if value else ("includefield", key)
            for key, value in asked.items()
        ]
        seen: set[str] = set()
        offset = 0
        while True:
            paging = [("limit", str(PAGE)), ("offset", str(offset))]
            page = self._page(path, [*query, *paging])
            told = [texts_of(one, (*keys, UIDS[level])) for one in page]
            fresh = [one for one in told if one.get(UIDS[level], "") not in seen]
            # One that knows no pages gives all of it each time.
            if not fresh:
                return
            seen.update(one.get(UIDS[level], "") for one in fresh)
            yield from fresh
            offset += len(page)

    def _page(self, path: str, query: Sequence[tuple[str, str]]) -> list[Dataset]:
        with self._asked(path, _JSON, query) as answer:
            body = bytearray()
            for chunk in self._chunks(answer):
                body += chunk
                if len(body) > _LONGEST_PAGE:
                    raise SourceError(f"{self.name}: its answer is too long: ask for less")
            if answer.status_code == httpx.codes.NO_CONTENT or not body:
                return []
        try:
            return [Dataset.from_json(one, lambda _uri: b"") for one in _listed(body)]
        except Exception as error:
            # pydicom meets what is no DICOM JSON with errors of many kinds; they may quote it.
            raise SourceError(f"{self.name}: its answer is no DICOM JSON (PS3.18 F)") from error

    def retrieve(
        self, series: ElsewhereSeries, wanted: Sequence[ElsewhereInstance], deposit: Deposit
    ) -> Iterator[str]:
        """Have instances of a series come; as `Archive.retrieve`."""
        path = _path({"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.uid})
        if len(wanted) == len(series.instances):
            yield from self._files(path, deposit)
            return
        for instance in wanted:
            yield from self._files(f"{path}/instances/{quote(instance.uid, safe='')}", deposit)

    def _files(self, path: str, deposit: Deposit) -> Iterator[str]:
        with self._asked(path, _FILES) as answer:
            kind = answer.headers.get("content-type", "")
            try:
                yield from take_in(kind, self._chunks(answer), deposit)
            except SourceError as error:
                raise SourceError(f"{self.name}: {error}") from error

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        for chunk in answer.iter_bytes():
            if self._is_stopped:
                raise self._broken_off()
            yield chunk

    def _broken_off(self) -> UnavailableError:
        return UnavailableError("fetching was broken off")

    @contextmanager
    def _asked(
        self, path: str, accept: str, query: Sequence[tuple[str, str]] = ()
    ) -> Iterator[httpx.Response]:
        """Ask; what goes wrong is told without the question, which may name a patient."""
        if self._is_stopped:
            raise self._broken_off()
        try:
            url = self._url + path + _query(query)
            tracing = {"trace": self._trace}
            with self._client.stream(
                "GET", url, headers={"Accept": accept}, extensions=tracing
            ) as answer:
                self._judge(answer)
                yield answer
        except httpx.ConnectTimeout as error:
            raise UnavailableError(f"{self.name}: no connection: {_UNREACHED}") from error
        except httpx.TimeoutException as error:
            raise UnavailableError(f"{self.name} did not answer for {READ_SECONDS:g} s") from error
        except httpx.ConnectError as error:
            if self._is_stopped:
                raise self._broken_off() from error
            raise UnavailableError(f"{self.name}: no connection: {_why(error)}") from error
        except httpx.HTTPError as error:
            if self._is_stopped:
                raise self._broken_off() from error
            raise UnavailableError(f"{self.name} broke off") from error

    def _judge(self, answer: httpx.Response) -> None:
        code = answer.status_code
        if answer.is_success:
            return
        what = f"{self.name} answered with HTTP status {code}"
        if code in _PASSING:
            raise UnavailableError(f"{what}: try again later")
        if answer.is_redirect:
            raise SourceError(f"{what}: it points elsewhere: name that url")
        raise SourceError(f"{what}: {_CURES.get(code, 'it refuses the question')}")


def _listed(body: bytes | bytearray) -> list[Any]:
    found = json.loads(body)
    if not isinstance(found, list):
        raise TypeError("it is no list")
    return found


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the part of a URL behind its path.

    What may stand as it is does (RFC 3986 section 3.4): not every server decodes wildcards.
    """
    written = urlencode(pairs, quote_via=quote, safe=_UNQUOTED)
    return f"?{written}" if written else ""


def _path(named: Attributes) -> str:
    """Return the resource that UIDs name, from the study down."""
    return "".join(f"/{_PARTS[key]}/{quote(uid, safe='')}" for key, uid in named.items())


def _why(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return _UNREACHED
