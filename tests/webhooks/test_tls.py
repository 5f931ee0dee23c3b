"""Webhooks over TLS: who answers must have a certificate that is trusted."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.config import Authorities
from dicom_adapter.model import DeliveryState
from tests.certificates import SERVER, Authority
from tests.webhooks.harness import KEY, Receiver, receiving, telling, webhook


def authorities(authority: Authority) -> Authorities:
    """Return an authority as the configuration has it."""
    return Authorities(authority.path, authority.path.read_text("ascii"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who has issued the receiver's certificate."""
    return Authority(tmp_path)


@pytest.fixture
def receiver(authority: Authority, tmp_path: Path) -> Iterator[Receiver]:
    """A receiver that speaks TLS."""
    authority.issue("server", usage=(SERVER,), dns=["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with receiving(tls=context) as started:
        yield started


def test_a_receiver_of_the_configured_authority_is_told(
    tmp_path: Path, authority: Authority, receiver: Receiver
) -> None:
    """The message goes over TLS as it goes without."""
    with telling(tmp_path, {"his": webhook(receiver.url, ca=authorities(authority))}) as told:
        told.cancelled()
        told.until(DeliveryState.SENT)
    assert receiver.got[0].is_signed_by(KEY)


def test_a_receiver_that_is_not_trusted_gets_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """By the machine's authorities, by another one, and under another name."""
    other = Authority(tmp_path, "other")
    nobody = webhook(receiver.url)
    hooks = {
        "nobody": nobody,
        "other": webhook(receiver.url, ca=authorities(other)),
        "name": webhook(
            receiver.url.replace("localhost", "127.0.0.1"),
            ca=Authorities(tmp_path / "ca.pem", (tmp_path / "ca.pem").read_text("ascii")),
        ),
    }
    with telling(tmp_path, hooks) as told:
        told.cancelled()

        def tried() -> dict[str, str]:
            found = {d.webhook: d.error for d in told.listed() if d.attempts}
            return found if len(found) == 3 else {}

        errors = told.ledger.wait_for(tried, 20)
    assert all("its certificate is not trusted" in error for error in errors.values()), errors
    assert receiver.got == []


def test_one_that_speaks_no_tls_is_told_apart(tmp_path: Path) -> None:
    """The reason is TLS, not the network."""
    with receiving() as plain:
        hook = webhook(plain.url.replace("http:", "https:"))
        with telling(tmp_path, {"his": hook}) as told:
            told.cancelled()
            assert told.tried(1).error.startswith("no connection: TLS failed (")
