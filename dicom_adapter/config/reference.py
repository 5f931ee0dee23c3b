"""Writes the reference of every key from the models themselves, so that it cannot be wrong.

`python -m dicom_adapter.config.reference docs/configuration.md` brings a page up to date.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dicom_adapter.config.changes import FIXED
from dicom_adapter.config.section import Section
from dicom_adapter.config.settings import (
    Settings,
)
from dicom_adapter.config.values import Kind, any_of

BEGIN = "<!-- Made by dicom_adapter/config/reference.py from the models: do not edit. -->"
END = "<!-- The end of what is made from the models. -->"

_NAME = "NAME"


@dataclass(frozen=True)
class Row:
    """One key: what it takes, what it is without being given, and what it means."""

    key: str
    takes: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"| `{self.key}` | {self.takes} | {self.default} | {self.meaning} |"


def reference() -> str:
    """Writes a table for each section of the configuration."""
    parts = []
    for key, field in Settings.model_fields.items():
        models = _models(field.annotation)
        is_named = get_origin(field.annotation) is not None
        prefix = f"{key}.{_NAME}" if is_named else key
        if models:
            parts.append(f"### {key}")
        parts += [f"{model.__doc__}\n\n{table(model, prefix)}" for model in models]
    return "\n\n".join(parts)


def table(model: type[BaseModel], prefix: str) -> str:
    """Writes the table of one model, such as a job processor's settings."""
    head = ("| Key | Takes | Default | Meaning |", "| --- | --- | --- | --- |")
    return "\n".join([*head, *map(str, rows(model, prefix))])


def rows(model: type[BaseModel], prefix: str) -> Iterator[Row]:
    """Yields the keys of a model and of the models inside it."""
    for name, field in model.model_fields.items():
        key = f"{prefix}.{field.alias or name}"
        inner = [model for model in _models(field.annotation) if issubclass(model, Section)]
        if inner:
            yield from rows(inner[0], key)
        elif name != getattr(model, "named_by", None):
            takes, kind = _takes(field.annotation, field.metadata)
            meaning = field.description or ""
            if tuple(key.split(".")) in FIXED:
                meaning += " Needs a restart."
            yield Row(key, takes, _default(field, kind), meaning)


def updated(page: str) -> str:
    """Gives a page with the reference between its two marks made anew."""
    before, _begin, rest = page.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _models(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any type annotation
    """Finds the models in an annotation: itself, or those that the values of a mapping may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _takes(annotation: Any, metadata: Iterable[Any]) -> tuple[str, Kind | None]:  # noqa: ANN401 - any type annotation
    """Says in words what values an annotation takes."""
    notes = list(_flat(metadata))
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        return _takes(annotation, [*inner, *notes])
    kind = next((note for note in notes if isinstance(note, Kind)), None)
    arguments = get_args(annotation)
    if kind is not None:
        return kind.words + _bounds(notes), kind
    if get_origin(annotation) in (Union, UnionType):
        words, kind = _takes(arguments[0], notes)
        return f"{words}, or `null`", kind
    if get_origin(annotation) is tuple:
        words, _kind = _takes(arguments[0], ())
        return f"list of {words}s" if words.isalpha() else f"list, each {words}", None
    if choices := _choices(annotation):
        return any_of([f"`{choice}`" for choice in choices]), None
    return "text", None


def _choices(annotation: Any) -> Sequence[Any]:  # noqa: ANN401 - any type annotation
    """Lists the words that an annotation allows, where it names them."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [choice.value for choice in annotation]
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for note in metadata:
        if isinstance(note, FieldInfo):
            yield from _flat(note.metadata)
        else:
            yield note


def _bounds(notes: list[Any]) -> str:
    lowest = next((note.ge for note in notes if isinstance(note, Ge)), None)
    highest = next((note.le for note in notes if isinstance(note, Le)), None)
    if lowest is not None and highest is not None:
        return f", {lowest} to {highest}"
    return f", {lowest} or more" if lowest is not None else ""


def _default(field: FieldInfo, kind: Kind | None) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "default" in extra:
        return str(extra["default"])
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), ""):
        return "none"
    return f"`{kind.write(value) if kind else value}`"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(updated(target.read_text("utf-8")), "utf-8")
