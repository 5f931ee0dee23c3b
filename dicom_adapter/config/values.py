"""The kinds of value that settings are made of, each with its check and its plain words.

A processor's own Settings may use them too: Seconds, Size, Percentage, Text, PipelineName.
"""

import difflib
import ipaddress
import re
import string
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WrapSerializer,
)

from dicom_adapter.config import units

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PLACEHOLDERS = ("input", "output", "job", "progress")
MAX_PORT = 65_535

_AE_TITLE_LENGTH = 16
_UID_LENGTH = 64
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_HOST_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?", re.ASCII
)
_HOST_NAME_LENGTH = 253
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
# Never like an option, and nothing that a runtime could take for more than one word.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", re.ASCII)
_SQLITE = "sqlite:///"
# The ledger's URL would end there, or have another sign there; a NUL is in no file's name.
_NOT_IN_A_URL = frozenset("?%\0")


@dataclass(frozen=True)
class Kind:
    """What a value is called in the reference, and how its default is written there."""

    words: str
    write: Callable[[Any], str] = str


def near(word: str, known: Iterable[str]) -> str:
    """Asks "did you mean ...?" where a known word is close to this one."""
    matches = difflib.get_close_matches(word[:200], sorted(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def from_context(info: ValidationInfo, key: str) -> Any:  # noqa: ANN401 - pydantic's context is untyped
    """Reads what the rest of the configuration tells this check; None where it tells nothing."""
    return info.context.get(key) if isinstance(info.context, Mapping) else None


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def check_ae_title(value: str) -> str:
    """Checks an AE title and takes off the spaces around it, which do not count (PS3.5 6.2)."""
    title = value.strip(" ")
    if not title:
        raise ValueError("an AE title must not be empty nor only spaces")
    if len(title) > _AE_TITLE_LENGTH:
        raise ValueError(
            f"an AE title has at most {_AE_TITLE_LENGTH} characters, this one has {len(title)}"
        )
    for character in title:
        if character == "\\" or not " " <= character <= "~":
            raise ValueError(
                f"an AE title holds letters, digits, spaces and signs of ASCII without the "
                f"backslash, not {character!a}"
            )
    return title


def check_uid(value: str) -> str:
    """Checks that a text has the form of a UID."""
    if len(value) > _UID_LENGTH or not _UID.fullmatch(value):
        raise ValueError(
            f"must be a UID: numbers without leading zeros, joined by dots, at most "
            f"{_UID_LENGTH} characters, not {units.show(value)}"
        )
    return value


def check_name(value: str, whose: str) -> str:
    """Checks a name that goes into logs, tables and command lines."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{whose} has 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            f"and starts with a letter or digit; not {units.show(value)}"
        )
    return value


def known_pipelines(info: ValidationInfo) -> frozenset[str] | None:
    """Tells a settings model which pipelines exist; None: the platform alone knows them."""
    names: frozenset[str] | None = from_context(info, "pipelines")
    return names


def _configured_pipeline(value: str, info: ValidationInfo) -> str:
    return _configured(value, "pipeline", known_pipelines(info))


def _configured_project(value: str, info: ValidationInfo) -> str:
    return _configured(value, "project", from_context(info, "projects"))


def _configured(value: str, kind: str, names: frozenset[str] | None) -> str:
    check_name(value, f"a {kind}'s name")
    if names is None or value in names:
        return value
    configured = f"configured are {', '.join(sorted(names))}" if names else "none is configured"
    raise ValueError(f"there is no {kind} {value!r}, {configured}{near(value, names)}")


def _folder(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        path = value
    elif isinstance(value, str):
        path = Path(_text(value))
    else:
        raise ValueError(f"must be a path, not {units.show(value)}")  # noqa: TRY004 - pydantic reports ValueError alone
    path = absolute(path, from_context(info, "base"))
    if _NOT_IN_A_URL & set(str(path)):
        raise ValueError(f"must be a path without '?' and '%', not {units.show(str(path))}")
    return path


def file_path(value: object, info: ValidationInfo) -> Path:
    """Gives the path of a file that a key names; it need not be there."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"must be the path of a file, not {units.show(value)}")
    return absolute(Path(value), from_context(info, "base"))


def absolute(path: Path, base: Path | None) -> Path:
    """Makes a path absolute: relative to the configuration's folder, else the working one."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"must be a path, and '~' has no home here: {error}") from error
    return ((base or Path()) / path).absolute()


def _ledger_url(value: str, info: ValidationInfo) -> str:
    if not value.startswith(_SQLITE):
        raise ValueError(
            "must be a SQLite file such as sqlite:////var/lib/dicom-adapter/ledger.db, or "
            "sqlite:///ledger.db beside this file; "
            f"not {units.show(_without_password(value))}"
        )
    name = value.removeprefix(_SQLITE)
    if not name.strip() or name == ":memory:" or _NOT_IN_A_URL & set(name):
        raise ValueError("must name a file, which outlives the service, without '?' and '%' in it")
    return ledger_url(absolute(Path(name), from_context(info, "base")))


def ledger_url(file: Path) -> str:
    """Gives the URL of a ledger that lives in an absolute file."""
    return f"{_SQLITE}{file}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", url)


def _bind_host(value: str) -> str:
    if value == "localhost":
        return value
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            "must be an IP address of this machine, 0.0.0.0 for all of them, or localhost; "
            f"not {units.show(value)}"
        ) from None


def _network(value: object) -> IPNetwork:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    example = "an IP address or network such as 10.1.2.3 or 10.1.2.0/24"
    if not isinstance(value, str):
        raise ValueError(f"must be {example}, not {units.show(value)}")  # noqa: TRY004 - pydantic reports ValueError alone
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        cure = "; give a host's address instead of its name" if _is_host_name(value) else ""
        raise ValueError(f"must be {example}, not {units.show(value)}{cure}") from None
    raise ValueError(
        f"{units.show(value)} is an address inside a network: write {network} for the network, "
        f"or {value.partition('/')[0]} for the one host"
    )


def _is_host_name(value: str) -> bool:
    return len(value) <= _HOST_NAME_LENGTH and bool(
        _HOST_NAME.fullmatch(value) and re.search("[A-Za-z]", value)
    )


def split_address(value: str) -> tuple[str, int]:
    """Splits HOST:PORT, with IPv6 addresses in brackets, into host and port."""
    wrong = f"must be HOST:PORT such as 127.0.0.1:50051 or [::1]:50051, not {units.show(value)}"
    host, colon, digits = value.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", digits, re.ASCII) or int(digits) > MAX_PORT:
        raise ValueError(wrong)
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1])), int(digits)
        if re.fullmatch("[0-9.]+", host, re.ASCII):
            return str(ipaddress.IPv4Address(host)), int(digits)
    except ValueError:
        raise ValueError(wrong) from None
    if not _is_host_name(host):
        raise ValueError(wrong)
    return host, int(digits)


def overlap(listening: str, other: str) -> bool:
    """Tells whether two addresses of this machine can want the same port."""
    local = {"localhost": "127.0.0.1"}
    one = ipaddress.ip_address(local.get(listening, listening))
    two = ipaddress.ip_address(local.get(other, other))
    return one == two or one.is_unspecified


def _listen(value: str) -> str:
    split_address(value)
    return value


def is_loopback(host: str) -> bool:
    """Tells whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _platform_address(value: str) -> str:
    if value == "embedded":
        return value
    try:
        split_address(value)
    except ValueError as error:
        raise ValueError(f"{error}; or embedded for the one inside this service") from None
    return _other_platform(value)


def _other_platform(value: str) -> str:
    _host, port = split_address(value)
    if port == 0:
        raise ValueError("must name the platform's real port, not 0")
    return value


def _argument(value: str) -> str:
    _text(value)
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        fields = list(string.Formatter().parse(value))
    except ValueError:
        raise ValueError(
            f"has a brace of its own: write {{{{ or }}}} for a literal one; placeholders are "
            f"{allowed}"
        ) from None
    for _literal, name, spec, conversion in fields:
        if name is not None and (name not in PLACEHOLDERS or spec or conversion):
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"has the unknown placeholder {units.show(f'{{{written}}}')}; there are {allowed}, "
                "and a literal brace is doubled"
            )
    return value


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError(
            "must be the name of an image, such as registry.example.org/lung:1.2, not "
            f"{units.show(value)}"
        )
    return value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"must name each once, and names {', '.join(map(repr, twice))} again")
    return values


def _exit_code(number: int) -> int:
    if number == 0:
        raise ValueError("must be the code of a failure: 0 is success")
    return number


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def _proxy(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _as_dict(value: Mapping[str, Any], handler: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401 - what pydantic makes of it
    return handler(dict(value))


def any_of(words: Collection[str]) -> str:
    """Joins words as a person would: a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


_Value = TypeVar("_Value")

Flag: TypeAlias = Annotated[StrictBool, Kind("`true` or `false`", lambda v: str(v).lower())]
Whole: TypeAlias = Annotated[StrictInt, Kind("whole number")]
ExitCode: TypeAlias = Annotated[
    StrictInt, Field(ge=-64, le=255), AfterValidator(_exit_code), Kind("exit code")
]
Port: TypeAlias = Annotated[StrictInt, Field(ge=0, le=MAX_PORT), Kind("port")]
Seconds: TypeAlias = Annotated[
    float, BeforeValidator(units.parse_duration), Kind("duration", units.format_duration)
]
PositiveSeconds: TypeAlias = Annotated[Seconds, AfterValidator(_positive)]
Size: TypeAlias = Annotated[int, BeforeValidator(units.parse_size), Kind("size", units.format_size)]
Percentage: TypeAlias = Annotated[
    float, BeforeValidator(units.parse_percentage), Kind("percentage", units.format_percentage)
]
Text: TypeAlias = Annotated[str, AfterValidator(_text), Kind("text")]
AETitleText: TypeAlias = Annotated[str, AfterValidator(check_ae_title), Kind("AE title")]
UIDText: TypeAlias = Annotated[str, AfterValidator(check_uid), Kind("UID")]
PipelineName: TypeAlias = Annotated[
    str, AfterValidator(_configured_pipeline), Kind("name of a pipeline")
]
ProjectName: TypeAlias = Annotated[
    str, AfterValidator(_configured_project), Kind("name of a project")
]
Folder: TypeAlias = Annotated[Path, BeforeValidator(_folder), Kind("path")]
LedgerURL: TypeAlias = Annotated[str, AfterValidator(_ledger_url), Kind("`sqlite:///FILE`")]
BindHost: TypeAlias = Annotated[str, AfterValidator(_bind_host), Kind("IP address or `localhost`")]
Network: TypeAlias = Annotated[IPNetwork, BeforeValidator(_network), Kind("IP address or network")]
Listen: TypeAlias = Annotated[str, AfterValidator(_listen), Kind("`HOST:PORT`")]
PlatformAddress: TypeAlias = Annotated[
    str, AfterValidator(_platform_address), Kind("`embedded` or `HOST:PORT`")
]
OtherPlatform: TypeAlias = Annotated[str, AfterValidator(_other_platform), Kind("`HOST:PORT`")]
Argument: TypeAlias = Annotated[str, AfterValidator(_argument), Kind("text")]
ImageName: TypeAlias = Annotated[str, AfterValidator(_image), Kind("name of an image")]
UniqueTexts: TypeAlias = Annotated[tuple[Text, ...], AfterValidator(_unique)]
Frozen: TypeAlias = Annotated[
    Mapping[str, _Value], AfterValidator(_proxy), WrapSerializer(_as_dict)
]
