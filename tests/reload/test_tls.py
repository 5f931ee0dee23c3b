"""Certificates are replaced while the service runs: for the next connection, or not at all."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.errors import ConfigError
from tests.certificates import DAY, SERVER, Authority
from tests.receive.conftest import log
from tests.receive.support import Log, free_port
from tests.receive.test_tls import client, secured, tls
from tests.receive.wire import ASSOCIATE_AC, RELEASE_RP, RELEASE_RQ, associate_rq
from tests.reload.test_reload import reload
from tests.support import CONFIG, Running, running

__all__ = ["log"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with certificates for the service and for one client, CT1."""
    found = Authority(tmp_path)
    found.issue("service", usage=(SERVER,))
    found.issue("CT1")
    found.revoke()
    return found


@pytest.fixture
def port() -> int:
    """The port of TLS."""
    return free_port()


@pytest.fixture
def text(port: int) -> str:
    """A configuration with TLS."""
    return CONFIG.replace("port: 0", f"port: 0, {tls(port)}")


@pytest.fixture
def adapter(tmp_path: Path, authority: Authority, text: str) -> Iterator[Running]:
    """A service with TLS."""
    del authority
    with running(tmp_path, text) as service:
        yield service


def serial(port: int, context: ssl.SSLContext) -> object:
    """Return the serial number of the certificate that the service shows."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain) as connection,
    ):
        found = connection.getpeercert()
    assert found
    return found["serialNumber"]


def test_a_replaced_certificate_is_shown_to_the_next_one(
    tmp_path: Path, adapter: Running, authority: Authority, text: str, port: int
) -> None:
    """Under the same name; who is in an association already stays in it."""
    context = client(tmp_path)
    before = serial(port, context)
    with secured(port, context) as peer:
        peer.send(associate_rq())
        assert peer.read()[0] == ASSOCIATE_AC
        authority.issue("service", usage=(SERVER,))
        assert serial(port, context) == before, "files are read at a reload, not before"
        told = reload(adapter, text)
        assert told == ["dicom.tls.certificate changed", "dicom.tls.key changed"]
        assert serial(port, context) != before
        peer.send(RELEASE_RQ)
        assert peer.read()[0] == RELEASE_RP
    assert reload(adapter, text) == []


def test_a_certificate_that_cannot_be_used_changes_nothing(
    tmp_path: Path, adapter: Running, authority: Authority, text: str, port: int
) -> None:
    """Neither it nor what else was changed in the file."""
    context = client(tmp_path)
    before = serial(port, context)
    authority.issue("another")
    (tmp_path / "another.key").rename(tmp_path / "service.key")
    with pytest.raises(ConfigError, match=r"dicom\.tls\.key: is not the key of"):
        reload(adapter, text.replace("TEST:", "OTHER:"))
    assert serial(port, context) == before
    assert "TEST" in adapter.service.settings.ae_titles


def test_tls_comes_and_goes(tmp_path: Path, authority: Authority, text: str, port: int) -> None:
    """Its port is opened and closed; who talks by it goes on."""
    del authority
    with running(tmp_path) as adapter:
        plain = adapter.ready.dicom
        assert "dicom.tls.port added" in reload(adapter, text)
        assert adapter.service.status().dicom == (*plain, f"127.0.0.1:{port}")
        with secured(port, client(tmp_path)) as peer:
            peer.send(associate_rq())
            assert peer.read()[0] == ASSOCIATE_AC
            assert "dicom.tls.port removed" in reload(adapter, CONFIG)
            assert adapter.service.status().dicom == plain
            peer.send(RELEASE_RQ)
            assert peer.read()[0] == RELEASE_RP


def test_what_ends_soon_is_told(tmp_path: Path, authority: Authority, text: str, log: Log) -> None:
    """A certificate 30 days before, and a CRL afterwards: in the log, and where people look."""
    authority.issue("service", usage=(SERVER,), ends=29 * DAY)
    authority.revoke(ends=-DAY)
    with running(tmp_path, text) as adapter:
        told = adapter.service.status().attention
        assert [line["event"] for line in log.of("tls.expiring")] == list(told)
        authority.issue("service", usage=(SERVER,), ends=31 * DAY)
        authority.revoke()
        reload(adapter, text)
        assert adapter.service.status().attention == ()
        assert len(log.of("tls.expiring")) == 2
    first, second = told
    assert first.startswith("the TLS certificate ends on ")
    assert "dicom.tls.certificate" in first
    assert second.startswith("every TLS client certificate is refused: the CRL has ended on ")


def test_one_that_has_ended_is_told_and_served(
    tmp_path: Path, authority: Authority, text: str
) -> None:
    """Some clients do not look; the others are the reason to tell."""
    authority.issue("service", usage=(SERVER,), starts=-3 * DAY, ends=-2 * DAY)
    with running(tmp_path, text) as adapter:
        (told,) = adapter.service.status().attention
    assert told.startswith("the TLS certificate has ended on ")
