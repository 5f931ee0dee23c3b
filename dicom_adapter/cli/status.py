"""`status`: what needs a person first, then what runs, and what is kept and why."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import typer

from dicom_adapter.cli.common import ConfigOption, DataOption, JsonOption, ServerOption, connect
from dicom_adapter.cli.output import Row, cell, counted, human_size, human_time, plain, print_json
from dicom_adapter.lifecycle import JobState
from dicom_adapter.rpc.client import CALL_SECONDS
from dicom_adapter.v1 import adapter_pb2

INDENT = "  "


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show what runs and what needs a person. What is kept in the spool is told with its reason."""
    with connect(config, server, data) as client, client.errors():
        found = client.adapter.GetStatus(adapter_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
    if as_json:
        print_json(plain(found))
        return
    for line in told(plain(found), datetime.now(UTC)):
        typer.echo(line)


def told(status: Row, now: datetime) -> Iterator[str]:
    """Yield the lines that tell a status to people."""
    since = human_time(status["started_at"], now)
    yield f"DICOM Adapter {status['version']}, started {since}"
    yield from _section("NEEDS A PERSON", (f"! {cell('', line)}" for line in status["attention"]))
    if not status["attention"]:
        yield f"{INDENT}nothing needs a person"
    yield from _section("rejected or refused since the start", _rejected(status["rejections"], now))
    yield from _section("listening", _listening(status))
    yield from _section("kept in the spool", _kept(status["keeping"], now))
    yield from _section("disk", _disk(status["disk"], status["durability"]))
    yield from _section("jobs", _jobs(status["jobs"]))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    """Yield a title and its lines; no title without a line."""
    for number, line in enumerate(lines):
        if not number:
            yield ""
            yield title
        yield f"{INDENT}{line}"


def _listening(status: Row) -> Iterator[str]:
    if status["dicom"]:
        open_now = counted(status["associations"], "association")
        yield f"DICOM     {', '.join(status['dicom'])}  ({open_now} open)"
    yield f"gRPC      {', '.join(status['grpc'])}"
    yield f"platform  {status['platform']}"


def _kept(keeping: list[Row], now: datetime) -> Iterator[str]:
    if not keeping:
        yield "nothing"
    for kept in keeping:
        oldest = f", the oldest came {human_time(kept['oldest'], now)}" if kept["oldest"] else ""
        number = counted(kept["instances"], "instance")
        yield f"{number} {kept['reason']}: {human_size(kept['size'])}{oldest}"


def _disk(disk: Row, durability: str) -> Iterator[str]:
    yield (
        f"{human_size(disk['free'])} free; {disk['used_fraction']:.0%} full, watermark "
        f"{disk['watermark']:.0%}; reserve {human_size(disk['reserve'])}"
    )
    yield f"durability {durability}"


def _jobs(counts: dict[str, Any]) -> Iterator[str]:
    told = [f"{counts[state]} {state.replace('_', ' ')}" for state in JobState if state in counts]
    if told:
        yield ", ".join(told)


def _rejected(rejections: list[Row], now: datetime) -> Iterator[str]:
    for one in reversed(rejections):
        calling, called = cell("", one["calling_ae_title"]), cell("", one["called_ae_title"])
        yield (
            f"{calling} at {one['address']} calling {called}: {one['why']} "
            f"({counted(one['count'], 'time')}, last {human_time(one['last_at'], now)})"
        )
