"""What calls by HTTP need of the configuration: addresses, files of authorities and passwords."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, InstanceOf, ValidationInfo

from dicom_adapter.config.values import Kind, file_path

_LARGEST_FILE = 1024 * 1024


@dataclass(frozen=True)
class Authorities:
    """The certificates that a server's is checked by, as the file was when it was read."""

    path: Path
    content: str = field(repr=False)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Password:
    """The password that a server knows us by, as it was when the configuration was read."""

    path: Path
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return str(self.path)


def check_url(value: str, example: str, cure: str) -> str:
    """Check an address of HTTP; what is told does not quote it, since it may hold a secret.

    Args:
        value: What stands there.
        example: What could.
        cure: What is there instead of a user in it.

    Raises:
        ValueError: it is none.
    """
    wrong = f"must be an address such as {example}"
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f"{wrong}, of ASCII without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{wrong}, and begin with https:// or http://")
    if not parts.hostname or port == 0 or parts.fragment:
        raise ValueError(wrong)
    if parts.username is not None:
        raise ValueError(f"must be without a user: {cure}")
    return value


def read_text(value: object, info: ValidationInfo) -> tuple[Path, str]:
    """Return the path that a key of the configuration names, and the ASCII text that it holds.

    Raises:
        ValueError: it is no path, or cannot be read, or is no such text.
    """
    path = file_path(value, info)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}: {path}") from None
    try:
        return path, content.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"must be text in ASCII, and is not: {path}") from None


def read_authorities(value: object, info: ValidationInfo) -> Authorities:
    """Check a key of the configuration that names a file with certificates in PEM form."""
    if isinstance(value, Authorities):
        return value
    path, text = read_text(value, info)
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"holds no CERTIFICATE in PEM form: {path}") from None
    return Authorities(path, text)


def read_password(value: object, info: ValidationInfo) -> Password:
    """Check a key of the configuration that names a file with a password alone, on one line."""
    if isinstance(value, Password):
        return value
    path, text = read_text(value, info)
    secret = text.rstrip("\r\n")
    if not secret or not secret.isprintable():
        raise ValueError(f"must hold a password alone, on one line: {path}")
    return Password(path, secret)


AuthoritiesFile: TypeAlias = Annotated[Authorities, BeforeValidator(read_authorities), Kind("path")]
PasswordFile: TypeAlias = Annotated[
    InstanceOf[Password], BeforeValidator(read_password), Kind("path")
]
