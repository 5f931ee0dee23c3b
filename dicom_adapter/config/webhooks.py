"""The webhooks: whom to tell of which jobs, and the files of keys that it takes."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from dicom_adapter.config import units
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.http import AuthoritiesFile, check_url, read_text
from dicom_adapter.config.section import Section
from dicom_adapter.config.values import (
    AETitleText,
    Kind,
    PipelineName,
    PositiveSeconds,
    check_name,
    from_context,
    near,
)
from dicom_adapter.lifecycle import Action, JobState

#: What a move may be chosen by: the state that a job comes into, or what moves it there.
MOVES = tuple(word.value for word in (*JobState, *Action))

_KEY_PREFIX = "whsec_"
# As Standard Webhooks has it.
_SHORTEST_KEY, _LONGEST_KEY = 24, 64
# Two are enough to change from one to another.
_MOST_KEYS = 8
_CURE = 'make one with `echo "whsec_$(openssl rand -base64 32)"`'


@dataclass(frozen=True)
class SigningKeys:
    """The keys that messages are signed by, as they were when the configuration was read."""

    path: Path
    keys: tuple[bytes, ...] = field(repr=False)

    def __str__(self) -> str:
        return str(self.path)


def read_keys(value: object, info: ValidationInfo) -> SigningKeys:
    """Check a key of the configuration that names a file with signing keys, one a line."""
    if isinstance(value, SigningKeys):
        return value
    if isinstance(value, str) and value.strip().startswith(_KEY_PREFIX):
        # First: what is told of a value that is no path quotes it.
        raise ValueError("must be the path of a file with the key in it, not the key")
    path, text = read_text(value, info)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"holds no key: {path}; {_CURE}")
    if len(lines) > _MOST_KEYS:
        raise ValueError(f"holds more than {_MOST_KEYS} keys: {path}; take the old ones out")
    return SigningKeys(path, tuple(_key(path, *numbered) for numbered in enumerate(lines, 1)))


def _key(path: Path, number: int, line: str) -> bytes:
    # What stands there is never told: it may be a key all the same.
    try:
        key = base64.b64decode(line.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not line.startswith(_KEY_PREFIX) or not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise ValueError(
            f"must hold whsec_ and {_SHORTEST_KEY} to {_LONGEST_KEY} bytes in base64 on each line, "
            f"and key {number} of {path} is none; {_CURE}"
        )
    return key


def _url(value: str) -> str:
    # What stands there is never told: many a receiver knows its friends by what its address says.
    return check_url(value, "https://10.1.2.3:8443/jobs", "the signature says who sends")


def _move(value: object) -> str:
    if isinstance(value, str) and value in MOVES:
        return str(value)
    hint = near(value, MOVES) if isinstance(value, str) else ""
    raise ValueError(
        f"must be a state that a job comes into ({', '.join(JobState)}) or what moves it "
        f"({', '.join(Action)}), not {units.show(value)}{hint}"
    )


def _configured_title(value: str, info: ValidationInfo) -> str:
    titles: frozenset[str] | None = from_context(info, "ae_titles")
    if not titles or value in titles:
        # Without AE titles of its own, this platform works for others, and cannot know theirs.
        return value
    raise ValueError(
        f"there is no AE title {value!r}, configured are {', '.join(sorted(titles))}"
        f"{near(value, titles)}"
    )


SigningKeysFile: TypeAlias = Annotated[SigningKeys, BeforeValidator(read_keys), Kind("path")]
WebhookUrl: TypeAlias = Annotated[
    str, AfterValidator(_url), Kind("`https://` or `http://` address")
]
MoveWord: TypeAlias = Annotated[str, BeforeValidator(_move), Kind("state or action")]
TitleWord: TypeAlias = Annotated[AETitleText, AfterValidator(_configured_title)]


class Webhook(Section):
    """Somebody who is told of jobs by HTTP: see [webhooks](webhooks.md)."""

    url: WebhookUrl = Field(description="Where messages are posted to.")
    secret: SigningKeysFile = Field(
        description="A file of keys, one a line, as `whsec_` and base64; each signs each message."
    )
    on: tuple[MoveWord, ...] = Field(
        default=(JobState.FINISHED, JobState.FAILED, JobState.CANCELLED),
        min_length=1,
        description="The moves that are told: states that jobs come into, or what moves them.",
        json_schema_extra={"default": "`finished`, `failed`, `cancelled`"},
    )
    pipelines: tuple[PipelineName, ...] = Field(
        default=(),
        description="Only jobs of these pipelines.",
        json_schema_extra={"default": "all"},
    )
    ae_titles: tuple[TitleWord, ...] = Field(
        default=(),
        description="Only jobs of these AE titles.",
        json_schema_extra={"default": "all"},
    )
    timeout: Annotated[PositiveSeconds, Field(le=60)] = Field(
        default=10.0, description="An answer that takes longer is none."
    )
    ca: AuthoritiesFile | None = Field(
        default=None,
        description="The authorities whose certificates are trusted, in PEM form.",
        json_schema_extra={"default": "those of the machine"},
    )


def webhook_problems(
    webhooks: Mapping[str, Webhook], *, embedded: bool
) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong with the webhooks beside the rest of the configuration."""
    if webhooks and not embedded:
        yield (
            ("webhooks",),
            "must not be here: webhooks are configured where jobs run (platform.address)",
        )
    for name, webhook in webhooks.items():
        try:
            check_name(name, "a webhook's name")
        except ValueError as error:
            yield ("webhooks", name), str(error)
        if webhook.ca is not None and webhook.url.startswith("http:"):
            yield ("webhooks", name, "ca"), "is not looked at: url begins with http://"
