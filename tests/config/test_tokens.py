"""The public key of tokens: what is wrong with it is told before anything starts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_adapter.config import Settings
from tests.certificates import write_key

Mistakes = Callable[[str], list[str]]
JWT = "dicom: {jwt: {key: %s, issuer: idp, audience: us}}\n"
KEYS: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
    "weak": rsa.generate_private_key(65537, 1024),  # noqa: S505 - that is the point
    "odd": ec.generate_private_key(ec.SECP256K1()),
    "dsa": dsa.generate_private_key(2048),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Public keys, and files that hold none."""
    for name, key in KEYS.items():
        content = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pem").write_bytes(content)
    write_key(tmp_path / "private.pem", ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "text.pem").write_text("none")


@pytest.mark.parametrize(
    ("name", "algorithms"),
    [
        ("rsa", "RS256 RS384 RS512 PS256 PS384 PS512"),
        ("p256", "ES256"),
        ("p521", "ES512"),
        ("ed25519", "EdDSA"),
        ("ed448", "EdDSA"),
    ],
)
def test_the_key_decides_how_tokens_are_signed(
    configured: Callable[[str], Settings], tmp_path: Path, name: str, algorithms: str
) -> None:
    """Never by a shared secret, and never not at all."""
    jwt = configured(JWT % f"{name}.pem").dicom.jwt
    assert jwt is not None
    assert jwt.key.algorithms == tuple(algorithms.split())
    assert str(jwt.key) == str(tmp_path / f"{name}.pem")
    assert "PUBLIC" not in repr(jwt)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("none.pem", "cannot be read: No such file or directory: .*/none.pem"),
        ("5", "must be the path of a file, not 5"),
        ("text.pem", "holds no PUBLIC KEY in PEM form: .*/text.pem"),
        ("private.pem", "is a private key: .*/private.pem; name the public one"),
        ("weak.pem", "is too weak: .*/weak.pem has 1024 bits, 2048 are needed"),
        ("odd.pem", "is of a kind that signs no tokens: .*/odd.pem"),
        ("dsa.pem", "is of a kind that signs no tokens: .*/dsa.pem"),
    ],
)
def test_one_mistake(mistakes: Mistakes, name: str, mistake: str) -> None:
    """It is told with its line and key, and nothing else is."""
    (told,) = mistakes(JWT % name)
    assert re.match(f"1: dicom.jwt.key: {mistake}", told), told


def test_all_of_it_must_be_given(mistakes: Mistakes) -> None:
    """A token without an issuer or an audience could be anybody's."""
    assert mistakes("dicom: {jwt: {}}") == [
        f"1: dicom.jwt.{key}: is missing, and must be given"
        for key in ("audience", "issuer", "key")
    ]


def test_a_token_is_enough_where_users_are_required(
    configured: Callable[[str], Settings],
) -> None:
    """Nobody needs a passcode besides."""
    text = JWT.replace("{jwt", "{require_user: true, jwt") % "rsa.pem"
    assert configured(text).dicom.require_user
