"""Files of the configuration about tokens: the key that checks those of peers, and our own."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BeforeValidator, InstanceOf, ValidationInfo

from dicom_adapter.config.values import Kind, file_path

# RFC 7518 section 3.3: nothing shorter may be used.
_SHORTEST_RSA_KEY = 2048
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True)
class TokenKey:
    """A public key, as it was when the configuration was read, and what it can check.

    The algorithms follow from the key (RFC 7518 section 3.1), and none of them is one by a shared
    secret: a token does not choose how it is checked.
    """

    path: Path
    content: bytes = field(repr=False)
    algorithms: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class BearerToken:
    """The token that another server knows us by, as it was when the configuration was read."""

    path: Path
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return str(self.path)


def read_bearer_token(value: object, info: ValidationInfo) -> BearerToken:
    """Check a key of the configuration that names a file with a token, and nothing else."""
    if isinstance(value, BearerToken):
        return value
    path, content = _read(value, info)
    secret = content.strip()
    # RFC 6750 section 2.1; the message must not quote it.
    if not re.fullmatch(rb"[A-Za-z0-9._~+/-]+=*", secret):
        raise ValueError(f"must hold a token alone, on one line: {path}")
    return BearerToken(path, secret.decode())


def read_token_key(value: object, info: ValidationInfo) -> TokenKey:
    """Check a key of the configuration that names a file with a public key in PEM form."""
    if isinstance(value, TokenKey):
        return value
    path, content = _read(value, info)
    return TokenKey(path, content, _algorithms(path, content))


def _read(value: object, info: ValidationInfo) -> tuple[Path, bytes]:
    path = file_path(value, info)
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}: {path}") from None


def _algorithms(path: Path, content: bytes) -> tuple[str, ...]:
    if b"PRIVATE KEY-----" in content:
        raise ValueError(f"is a private key: {path}; name the public one of who issues the tokens")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"holds no PUBLIC KEY in PEM form: {path}") from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _SHORTEST_RSA_KEY:
            raise ValueError(
                f"is too weak: {path} has {key.key_size} bits, {_SHORTEST_RSA_KEY} are needed"
            )
        return _RSA_ALGORITHMS
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVE_ALGORITHMS:
        return (_CURVE_ALGORITHMS[key.curve.name],)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ("EdDSA",)
    raise ValueError(f"is of a kind that signs no tokens: {path}; RSA, EC and Ed25519 do")


BearerTokenFile: TypeAlias = Annotated[
    InstanceOf[BearerToken], BeforeValidator(read_bearer_token), Kind("path")
]
