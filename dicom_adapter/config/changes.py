"""Tells what is different between two configurations, and what only a restart can change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dicom_adapter.config.document import KeyPath, dotted
from dicom_adapter.config.settings import Settings

#: Section and key of everything that a running service cannot change: it stands on them.
FIXED = (
    ("dicom", "host"),
    ("dicom", "processes"),
    ("storage", "path"),
    ("storage", "durability"),
    ("storage", "require_marker"),
    ("ledger", "url"),
    ("platform", "address"),
    ("platform", "token"),
    ("platform", "ca"),
    ("platform", "container_runtime"),
    ("platform", "container_options"),
    ("grpc", "listen"),
    ("log", "format"),
    ("log", "level"),
)

_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """A key of the configuration, and what became of it: added, removed or changed."""

    key: str
    change: str


def changes(before: Settings, after: Settings) -> tuple[Change, ...]:
    """Gives what differs, in the order of the sections."""
    # Where it was read from is no part of what it says.
    after = after.model_copy(update={"file": before.file})
    return tuple(Change(dotted(path), change) for path, change in _changes((), before, after))


def _changes(path: KeyPath, before: object, after: object) -> Iterator[tuple[KeyPath, str]]:
    if before is _ABSENT or after is _ABSENT:
        yield path, "added" if before is _ABSENT else "removed"
    elif before != after:
        old, new = _inside(before), _inside(after)
        found = [
            change
            for key in {**old, **new}
            for change in _changes((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
        ]
        # A value has nothing inside; and what differs in a stranger's settings may be no field.
        yield from found or [(path, "changed")]


def _inside(value: object) -> Mapping[str, Any]:
    """Gives the keys of a section or mapping with their values; none of anything else."""
    if not isinstance(value, BaseModel):
        return value if isinstance(value, Mapping) else {}
    fields = type(value).model_fields
    return {fields[name].alias or name if name in fields else name: part for name, part in value}
