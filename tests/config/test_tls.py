"""The files and ports of TLS: what is wrong with them is told before anything starts."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicom_adapter.config import Settings
from tests.certificates import DAY, SERVER, Authority, write_key

Mistakes = Callable[[str], list[str]]
TLS = "dicom: {tls: {certificate: service.pem, key: service.key, ca: ca.pem, crl: crl.pem%s}}\n"


@pytest.fixture(autouse=True)
def authority(tmp_path: Path) -> Authority:
    """An authority with what TLS needs, and some files that it does not."""
    found = Authority(tmp_path)
    found.issue("service", usage=(SERVER,), ends=100 * DAY)
    found.issue("another")
    found.revoke(ends=9 * DAY)
    write_key(tmp_path / "secret.key", ec.generate_private_key(ec.SECP256R1()), b"secret")
    (tmp_path / "der.pem").write_bytes(b"\x30\x82")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END")
    (tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END")
    (tmp_path / "folder").mkdir()
    return found


def test_all_of_it(configured: Callable[[str], Settings], tmp_path: Path) -> None:
    """Paths are relative to the configuration; when what they hold ends is known."""
    tls = configured(TLS % "").dicom.tls
    assert tls is not None
    assert (tls.port, tls.require_client_certificate) == (2762, True)
    assert str(tls.certificate) == str(tmp_path / "service.pem")
    now = datetime.now(UTC)
    for file, days in ((tls.certificate, 100), (tls.crl, 9)):
        assert file is not None
        assert file.ends_at is not None
        assert abs(file.ends_at - now - timedelta(days=days)) < timedelta(minutes=5)
    assert tls.key.ends_at is None
    assert tls.key.digest not in repr(tls)
    assert configured("dicom: {tls: }").dicom.tls is None


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("service.pem", "no.pem", "certificate: cannot be read: No such file or directory: .*/no"),
        ("service.pem", "folder", "certificate: cannot be read: Is a directory: "),
        ("service.pem", "5", "certificate: must be the path of a file, not 5"),
        ("service.pem", "der.pem", "certificate: holds no CERTIFICATE in PEM form: .*der.pem; op"),
        ("service.pem", "broken.pem", "certificate: holds no CERTIFICATE that can be understood"),
        ("service.pem", "another.pem", "key: is not the key of .*another.pem"),
        ("service.key", "service.pem", "key: holds no PRIVATE KEY in PEM form"),
        ("service.key", "broken.key", "key: cannot be used: "),
        ("service.key", "secret.key", "key: is encrypted: give one without a passphrase"),
        ("ca.pem", "service.key", "ca: holds no CERTIFICATE in PEM form"),
        ("crl.pem", "ca.pem", "crl: holds no X509 CRL in PEM form"),
        ("certificate: service.pem, ", "", "certificate: is missing, and must be given"),
        (", ca: ca.pem, crl: crl.pem", "", "ca: is missing: name who vouches for clients, or make"),
        ("ca: ca.pem, ", "require_client_certificate: false, ", "crl: revokes nothing without"),
        ("{cert", "{port: 11112, cert", "port: must not be 11112: dicom.port has it"),
        ("{cert", "{port: 0, cert", "port: must be at least 1, not 0"),
        ("{cert", "{port: 50051, cert", r"port: must not be 50051: grpc.listen \(127.0.0.1:50051"),
        ("{cert", "{prot: 1, cert", "prot: is an unknown key; did you mean 'port'?"),
    ],
)
def test_one_mistake(mistakes: Mistakes, old: str, new: str, mistake: str) -> None:
    """It is told with its line and key, and nothing else is."""
    (told,) = mistakes((TLS % "").replace(old, new))
    assert re.match(f"1: dicom.tls.{mistake.replace('?', '[?]')}", told), told


def test_a_weak_key_is_refused(mistakes: Mistakes, authority: Authority) -> None:
    """One of less than 2048 bits, of RSA (RFC 9325 section 4.5)."""
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    authority.issue("service", usage=(SERVER,), key=weak)
    (told,) = mistakes(TLS % "")
    assert told == "1: dicom.tls.certificate: is too weak: ee key too small"


def test_a_port_that_an_ae_title_has(mistakes: Mistakes) -> None:
    """AE titles with a port of their own are not served by TLS, so it is another one."""
    titles = "pipelines: {p: {command: [x]}}\nae_titles: {A: {port: 2762, settings: {pipeline: p}}}"
    (told,) = mistakes(TLS % "" + titles)
    assert told == "1: dicom.tls.port: must not be 2762: ae_titles.A.port has it"


@pytest.mark.parametrize(
    ("dicom", "mistake"),
    [
        ("dicom: {reject_unknown_sources: true}\n", "is never seen: it needs dicom.tls with a ca"),
        (TLS % "", "is not looked at: it needs dicom.reject_unknown_sources to be true"),
    ],
)
def test_a_binding_that_would_not_hold(mistakes: Mistakes, dicom: str, mistake: str) -> None:
    """A source that is bound to a certificate says so because it matters."""
    (told,) = mistakes(dicom + "sources: {S: {ae_title: A, host: 10.1.2.3, certificate: s}}")
    assert told == f"2: sources.S.certificate: {mistake}"
