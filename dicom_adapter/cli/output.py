"""Prints what the API answers: JSON Lines for programs, tables for people."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len

from dicom_adapter.logs import printable
from dicom_adapter.v1 import jobs_pb2

Row = Mapping[str, Any]

NOTHING = "-"
GAP = "  "
# Wider than any row: `grep` and `awk` get a row a line.
WIDE = 10_000

# Of any length; everything else in a table is short, or an id, which is never broken.
_TEXTS = frozenset({"key", "error", "reason", "description", "cure"})
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_SIZES = frozenset({"size", "memory", "max_rss_bytes", "free", "reserve"})
_SPANS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


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
    """Print one object on a line of its own, in ASCII: it survives every pipe and terminal."""
    typer.echo(json.dumps(values))


def print_rows(
    rows: Iterable[Row],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str,
    limit: int | None = None,
) -> None:
    """Print rows: every value of them as JSON Lines, or the named columns as a table."""
    rows = islice(rows, limit)
    if as_json:
        for row in rows:
            print_json(row)
        return
    now = datetime.now(UTC)
    cells = [[_short(column, row[column], now) for column in columns] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    # What no row has says nothing.
    used = [n for n in range(len(columns)) if any(row[n] != NOTHING for row in cells)]
    print_table([columns[n] for n in used], [[row[n] for n in used] for row in cells])


def print_values(values: Row, *, as_json: bool) -> None:
    """Print one thing: as one JSON object, or a line for each of its values."""
    if as_json:
        print_json(values)
        return
    print_table(None, [line for name, value in values.items() for line in _lines(name, value)])


def print_table(columns: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns.

    Where the terminal is too narrow, each row's texts go on lines of their own below it. In a pipe
    no line is cut.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    columns = columns or ("", "value")
    heads = [column.removesuffix("_at").replace("_", " ") for column in columns]
    widths = [max(map(cell_len, cells)) for cells in zip(heads, *rows, strict=True)]
    below = set()
    if sum(widths) + len(GAP) * (len(widths) - 1) > width:
        below = {number for number, column in enumerate(columns) if column in _TEXTS}
    across = [number for number in range(len(columns)) if number not in below]
    for cells in [heads, *rows] if columns[0] else rows:
        line = GAP.join(f"{cells[n]}{' ' * (widths[n] - cell_len(cells[n]))}" for n in across)
        typer.echo(line.rstrip())
        for n in below if cells is not heads else ():
            if cells[n] != NOTHING:
                typer.echo(f"    {heads[n]}: {cells[n]}")


def cell(name: str, value: Any) -> str:  # noqa: ANN401 - JSON of any kind
    """Return a value as people read it."""
    if value is None or value == "":
        return NOTHING
    if name in _SIZES:
        return human_size(value)
    if _is_time(name):
        return f"{value[:19].replace('T', ' ')} UTC"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(printable(str(one)) for one in value) or NOTHING
    return printable(str(value))


def _short(name: str, value: Any, now: datetime) -> str:  # noqa: ANN401 - JSON of any kind
    return human_time(value, now) if _is_time(name) and value else cell(name, value)


def _is_time(name: str) -> bool:
    return name.endswith("_at") or name == "oldest"


def human_size(size: float) -> str:
    """Return bytes with a unit."""
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    raise AssertionError("the last unit takes every size")


def human_time(moment: str, now: datetime) -> str:
    """Return how long ago a time in ISO 8601 was, or how soon it will be."""
    away = datetime.fromisoformat(moment) - now
    if abs(away) < timedelta(seconds=1):
        return "now"
    return f"in {human_span(away)}" if away > timedelta() else f"{human_span(-away)} ago"


def human_span(span: timedelta) -> str:
    """Return a span of time in its largest whole unit, or two below ten of these."""
    seconds = int(span.total_seconds())
    for (unit, length), (smaller, part) in pairwise(_SPANS):
        if seconds >= length:
            many, rest = divmod(seconds, length)
            more = f" {rest // part} {smaller}" if many < 10 and rest // part else ""  # noqa: PLR2004 - said above
            return f"{many} {unit}{more}"
    return f"{seconds} s"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with what it counts, in the right grammatical number."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON of any kind
    """Yield the lines of a value: what is inside it goes by `outer.inner`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}", inner)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value, start=1):
            yield from _entry(f"{name}.{number}", inner)
    elif isinstance(value, list | Mapping):
        yield name, NOTHING
    else:
        yield printable(name), cell(name.rpartition(".")[2], value)


def _entry(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON of any kind
    if not isinstance(value, Mapping):
        yield name, cell("", value)
        return
    flat = {key: text for key, text in value.items() if not isinstance(text, list | dict)}
    yield name, ", ".join(f"{key} {cell(key, text)}" for key, text in flat.items())
    for key, inner in value.items():
        if key not in flat and inner:
            yield from _lines(f"{name}.{key}", inner)
