"""Passcodes of users, as they are configured: by scrypt (RFC 7914), never plain."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

# A tenth of a second or more, and 16 MiB, for each guess.
_COST, _BLOCK, _PARALLEL = 2**14, 8, 5
_SALT_BYTES = _HASH_BYTES = 16
# What a configuration may ask for at most: 1 GiB.
_MOST_COST = 2**20
_FORM = re.compile(
    r"scrypt:([0-9]{1,7}):8:([1-9]):([A-Za-z0-9+/]{22}==):([A-Za-z0-9+/]{22}==)", re.ASCII
)


@dataclass(frozen=True)
class Passcode:
    """A passcode's hash, with what it was made by."""

    cost: int
    parallel: int
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def __str__(self) -> str:
        salt, hashed = (base64.b64encode(part).decode() for part in (self.salt, self.hash))
        return f"scrypt:{self.cost}:{_BLOCK}:{self.parallel}:{salt}:{hashed}"

    def matches(self, passcode: bytes) -> bool:
        """Tell whether it is the hash of this passcode; that takes its time, on purpose."""
        found = _scrypt(passcode, self.salt, self.cost, self.parallel)
        return hmac.compare_digest(found, self.hash)


def hashed(passcode: bytes) -> Passcode:
    """Return a new hash of a passcode."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return Passcode(_COST, _PARALLEL, salt, _scrypt(passcode, salt, _COST, _PARALLEL))


def unmatched() -> Passcode:
    """Return what no passcode matches, and takes as long to find out."""
    salt, hash_ = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES)
    return Passcode(_COST, _PARALLEL, salt, hash_)


def check_passcode(value: object) -> Passcode:
    """Check a hash as it is configured; what stands there is not told: it may be a passcode."""
    if isinstance(value, Passcode):
        return value
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    wrong = ValueError("must be what `dicom-adapter hash-passcode` prints, not the passcode")
    if found is None:
        raise wrong
    cost = int(found[1])
    if not 1 < cost <= _MOST_COST or cost & (cost - 1):
        raise wrong
    try:
        salt, hash_ = base64.b64decode(found[3]), base64.b64decode(found[4])
    except binascii.Error:
        raise wrong from None
    return Passcode(cost, int(found[2]), salt, hash_)


def _scrypt(passcode: bytes, salt: bytes, cost: int, parallel: int) -> bytes:
    # OpenSSL counts some kilobytes more than the algorithm's own 128 bytes by block and cost.
    memory = 256 * _BLOCK * cost + 2**20
    return hashlib.scrypt(
        passcode, salt=salt, n=cost, r=_BLOCK, p=parallel, maxmem=memory, dklen=_HASH_BYTES
    )
