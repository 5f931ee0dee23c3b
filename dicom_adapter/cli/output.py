"""Prints what the API answers: JSON Lines for programs, tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from dicom_adapter.v1 import jobs_pb2

Row = Mapping[str, Any]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
# Wider than any row: `grep` and `awk` get a row a line.
WIDE = 10_000


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values: numbers as numbers, times in ISO 8601, absent as None."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def plain_job(job: jobs_pb2.Job) -> dict[str, Any]:
    """Return a job as plain values, with what it asked for and what it used side by side."""
    values = plain(job)
    values["resources"] = {"requested": values.pop("requested"), "used": values.pop("used")}
    return values


def _field(message: Message, field: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = field.message_type.fields_by_name["value"]
        return {key: _value(value[key], values) for key in sorted(value)}
    if field.is_repeated:
        return [_value(entry, field) for entry in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        # JOB_STATE_IN_QUEUE of JobState is in_queue: Google's style repeats the type's name.
        prefix = "".join(f"_{c}" if c.isupper() else c for c in field.enum_type.name).strip("_")
        return name.removeprefix(f"{prefix.upper()}_").lower()
    return value


def print_json(values: Any) -> None:  # noqa: ANN401 - JSON of any kind
    """Print one object on a line of its own."""
    typer.echo(json.dumps(values, ensure_ascii=False))


def print_rows(rows: Iterable[Row], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print rows: every value of them as JSON Lines, or the named columns as a table."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    table = Table(*[column.replace("_", " ") for column in columns], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*[cell(column, row[column]) for column in columns])
    if table.row_count:
        console().print(table)
    else:
        typer.echo(empty)


def print_values(values: Row, *, as_json: bool) -> None:
    """Print one thing: as one JSON object, or a line for each of its values."""
    if as_json:
        print_json(values)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in values.items():
        for line in _lines(name, value):
            table.add_row(*line)
    console().print(table)


def console() -> Console:
    """Return where people read; in a pipe no line is cut, and nothing in a value is markup."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(markup=False, highlight=False, width=width)


def cell(name: str, value: Any) -> str:  # noqa: ANN401 - JSON of any kind
    """Return a value as people read it."""
    if value is None or value == "":
        return "-"
    if name in {"size", "memory", "max_rss_bytes", "free", "reserve"}:
        return human_size(value)
    if name.endswith("_at") or name == "oldest":
        return str(value)[:19].replace("T", " ")
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def human_size(size: float) -> str:
    """Return bytes with a unit."""
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    raise AssertionError("the last unit takes every size")


def _lines(name: str, value: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}", inner)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value, start=1):
            if isinstance(inner, Mapping):
                told = ", ".join(
                    f"{key} {cell(key, text)}"
                    for key, text in inner.items()
                    if not isinstance(text, list | dict)
                )
                yield f"{name}.{number}", told
                for key, text in inner.items():
                    if isinstance(text, list | dict) and text:
                        yield from _lines(f"{name}.{number}.{key}", text)
            else:
                yield f"{name}.{number}", str(inner)
    elif isinstance(value, list | Mapping):
        yield name, "-"
    else:
        yield name, cell(name.rpartition(".")[2], value)
